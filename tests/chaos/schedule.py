"""Which fault comes when: a pure function of a seed, a duration and what there is to break."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "pause", "broker", "database", "partition"]
Way = Literal["", "fast", "immediate", "stall", "cut", "refuse"]
Side = Literal["", "database", "broker"]

AT_LEAST = 5
"""Faults of each kind, however short the ordeal is."""
EVERY = 3.0
"""Seconds from one fault of a kind to the next, in a long one."""
LEASE = 6.0
_FIRST, _LAST = 0.4, 1.0
"""Seconds at the beginning and at the end in which nothing new breaks."""


@dataclass(frozen=True, slots=True)
class Topology:
    """What there is to break. Without ``database`` and ``broker``, one node with SQLite."""

    nodes: int = 1
    database: bool = False
    broker: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The faults that apply."""
        found: list[Kind] = ["kill", "pause"]
        if self.broker:
            found.append("broker")
        if self.database:
            found.append("database")
        if self.database or self.broker:
            found.append("partition")
        return tuple(found)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault: when, in seconds from the beginning; for how long; to which node.

    ``way`` is how a database is stopped or a connection broken; ``side`` is what a node is parted
    from.
    """

    at: float
    kind: Kind
    node: int
    seconds: float
    way: Way = ""
    side: Side = ""


def plan(
    seed: int, duration: float, topology: Topology, *, beyond_lease: bool = False
) -> tuple[Fault, ...]:
    """Return the faults in order. ``beyond_lease``: one pause is longer than a lease."""
    count = max(AT_LEAST, round(duration / EVERY))
    faults: list[Fault] = []
    for kind in topology.kinds:
        chance = random.Random(f"{seed}/{kind}")
        slot = (duration - _FIRST - _LAST) / count
        for number in range(count):
            at = _FIRST + slot * (number + chance.random())
            long = beyond_lease and kind == "pause" and number == count // 2
            faults.append(_fault(kind, at, chance, topology, long=long))
    return tuple(sorted(faults))


def _fault(
    kind: Kind, at: float, chance: random.Random, topology: Topology, *, long: bool
) -> Fault:
    at, node = round(at, 3), chance.randrange(topology.nodes)
    match kind:
        case "kill":
            return Fault(at, kind, node, _between(chance, 0.0, 0.4))
        case "pause":
            most = 3.0 if topology.nodes > 1 else 1.0
            seconds = LEASE + _between(chance, 2.0, 3.0) if long else _between(chance, 0.2, most)
            return Fault(at, kind, node, seconds)
        case "broker":
            return Fault(at, kind, -1, _between(chance, 0.1, 1.0))
        case "database":
            way: Way = chance.choice(("fast", "immediate"))
            return Fault(at, kind, -1, _between(chance, 0.1, 0.8), way)
        case "partition":
            how: Way = chance.choice(("stall", "cut", "refuse"))
            side = chance.choice(tuple(_sides(topology)))
            return Fault(at, kind, node, _between(chance, 0.2, 1.5), how, side)


def _sides(topology: Topology) -> Iterator[Side]:
    if topology.database:
        yield "database"
    if topology.broker:
        yield "broker"


def _between(chance: random.Random, least: float, most: float) -> float:
    return round(chance.uniform(least, most), 3)
