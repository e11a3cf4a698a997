"""Many nodes, simulated: what waits for a place, what leases and sweeps ask of the database, how
soon the runs of a dead node go on, and what breaks first. ``--seed`` fixes the outcome.

    python benchmarks/simulation.py [--seed 1] [--seconds 20] [--json FILE]
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks.simulation_clock import quantile
from benchmarks.simulation_leases import Cluster, Costs, Lease, Leases
from benchmarks.simulation_messages import Path as CancelPath
from benchmarks.simulation_messages import cancels
from benchmarks.simulation_queue import App, Fleet, Queueing

SIZES = (10, 100, 1_000)
_PLACES = 8
_LIVE = 100
_CONNECTIONS = 7
"""Connections of a node at most: it writes on one, reads on four, and two are for upkeep."""
_CONNECTIONS_MOST = 1_000
"""What one PostgreSQL server takes without its snapshots becoming the work; a rule of thumb."""
_STEADY = ("steady-1", "steady-2", "steady-3")

LEASES = {
    "each node, every run": Lease(),
    "each node, every owner": Lease(search="owners"),
    "10 a second, every owner": Lease(search="owners", sweeps=10),
}
"""How nodes look for the lost: who sweeps how often, and what a sweep looks at."""

QUEUES: dict[str, dict[str, Any]] = {
    "first come": {"fair": False, "chosen": 2 * _PLACES},
    "in turn, 1,000 offered": {},
    "in turn, 16 offered": {"chosen": 2 * _PLACES},
}
"""How waiting runs are taken: by age, or the apps in turn; and how many of them a sweep offers."""


@dataclass(frozen=True)
class Waiting:
    """Runs of 1 s (mean) on nodes with 8 places, one app in bursts: waits in seconds."""

    nodes: int
    queue: str
    runs_a_second: float
    wait_p50: float
    wait_p99: float
    steady_p99: float
    bursty_p99: float
    useless_looks_a_second: float
    rows_a_second: float


@dataclass(frozen=True)
class Leasing:
    """Nodes with 100 live runs each; one in a hundred, at least one, is killed."""

    nodes: int
    search: str
    statements_a_second: float
    sweeps_a_second: float
    rows_a_second: float
    database_cores: float
    renewal_p99_ms: float
    false_lapses: int
    takeover_p50: float
    takeover_p99: float
    left: int
    useless_claims: int


@dataclass(frozen=True)
class Cancelling:
    """Cancels asked of any node, in milliseconds."""

    nodes: int
    messages_a_cancel: float
    p50_ms: float
    p99_ms: float
    without_broker_p50_ms: float
    without_broker_p99_ms: float


def waiting(nodes: int, queue: str, seconds: float, seed: int) -> Waiting:
    """Let three steady apps and one that comes in bursts share the nodes."""
    capacity = nodes * _PLACES
    apps = [App(name, 0.15 * capacity) for name in _STEADY]
    # In a burst it asks for 1.2 times what there is; between bursts for a tenth.
    apps.append(App("bursty", 0.1 * capacity, (10.0, 2.0, 12.0)))
    fleet = Fleet(nodes, _PLACES, hint_lost=0.001, **QUEUES[queue])
    seen = Queueing(fleet, apps, lambda luck: luck.expovariate(1.0), seed).run(seconds)
    return Waiting(
        nodes,
        queue,
        round(seen.rate, 1),
        round(seen.wait(0.5), 4),
        round(seen.wait(0.99), 4),
        round(seen.wait(0.99, *_STEADY), 4),
        round(seen.wait(0.99, "bursty"), 4),
        round(seen.useless_looks / seconds, 1),
        round(seen.rows_swept / seconds, 1),
    )


def leasing(nodes: int, search: str, seconds: float, seed: int) -> Leasing:
    """Let nodes renew, sweep, die and be followed."""
    cluster = Cluster(nodes, _LIVE, deaths=max(1, nodes // 100))
    seen = Leases(cluster, LEASES[search], Costs(), seed).run(seconds)
    return Leasing(
        nodes,
        search,
        round(seen.statements, 1),
        round(seen.sweeps / seconds, 1),
        round(seen.rows / seconds, 1),
        round(seen.cores, 3),
        round(quantile(seen.renewed_in, 0.99) * 1000, 2),
        seen.lapses,
        round(seen.takeover(0.5), 2),
        round(seen.takeover(0.99), 2),
        seen.left,
        seen.useless_claims,
    )


def cancelling(nodes: int, seed: int) -> Cancelling:
    """Ask cancels of any node."""
    seen = cancels(nodes, 20_000, CancelPath(), seed)
    return Cancelling(
        nodes,
        round(seen.messages, 2),
        round(seen.p50 * 1000, 1),
        round(seen.p99 * 1000, 1),
        round(seen.without_broker_p50 * 1000, 1),
        round(seen.without_broker_p99 * 1000, 1),
    )


def findings(rows: list[Leasing], budget: float = 1.0) -> list[str]:
    """Say for each way of searching from how many nodes on it costs more than it may."""
    said = []
    for search in LEASES:
        over = [row for row in rows if row.search == search and row.database_cores > budget]
        if over:
            first = over[0]
            said.append(
                f"“{search}” costs {first.database_cores:.1f} cores of the database at "
                f"{first.nodes:,} nodes, more than {budget:g}: it breaks first."
            )
        else:
            said.append(f"“{search}” stays under {budget:g} core up to {SIZES[-1]:,} nodes.")
    return said


def crowding() -> str:
    """Say from how many nodes on a server has more connections than it bears."""
    most = _CONNECTIONS_MOST // _CONNECTIONS
    return (
        f"{_CONNECTIONS} connections a node: beyond {most} nodes they are more than "
        f"{_CONNECTIONS_MOST:,}, which one PostgreSQL server bears. It comes before any of these."
    )


def show(title: str, rows: list[Waiting] | list[Leasing] | list[Cancelling]) -> None:
    """Print rows as a table; headings are the names of their fields."""
    table = Table(title=title)
    for name in asdict(rows[0]):
        table.add_column(
            name.replace("_", " "), justify="right", no_wrap=name in ("queue", "search")
        )
    for row in rows:
        table.add_row(
            *(f"{value:,}" if not isinstance(value, str) else value for value in vars(row).values())
        )
    Console(width=170).print(table)


def main() -> None:
    """Simulate, print, and say what breaks first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="simulated, not waited for")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here as well")
    asked = parser.parse_args()
    seed, seconds = asked.seed, asked.seconds
    queued = [waiting(nodes, queue, seconds, seed) for nodes in SIZES[:2] for queue in QUEUES]
    # A second of a thousand nodes takes a second and more: enough of them to see a burst through.
    queued += [waiting(SIZES[2], queue, min(seconds, 6.0), seed) for queue in QUEUES]
    leased = [leasing(nodes, search, seconds, seed) for nodes in SIZES for search in LEASES]
    cancelled = [cancelling(nodes, seed) for nodes in SIZES]
    show("Waiting for a place", queued)
    show("Leases and takeovers", leased)
    show("Cancels of any node", cancelled)
    for line in [*findings(leased), crowding()]:
        print(line)
    if asked.json is not None:
        rows: list[Waiting | Leasing | Cancelling] = [*queued, *leased, *cancelled]
        everything = [asdict(row) for row in rows]
        asked.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
