"""Carries a schedule of faults out on real processes, and puts everything back in order."""

import asyncio
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.acceptance.harness import Served
from tests.acceptance.processes import alive, family, wait_until
from tests.chaos.schedule import Fault, Side, Way

_PUT_BACK = 150.0
"""Seconds within which whatever was broken stands again."""
_ORPHANS_GO = 10.0
_TICK = 0.01
_AGAIN = 0.1
_AWAY = ("INSULA_DATABASE_URL", "Nothing can be stored or read now")
"""What the last line says of a node that did not start because of its database."""


class Breakable(Protocol):
    """A database server or a broker."""

    async def stop(self, way: Way) -> None:
        """Take it away."""

    async def start(self) -> None:
        """Bring it back, at the same address."""


class Partable(Protocol):
    """A way from a node to what it needs, which can be broken."""

    async def part(self, way: Way) -> None:
        """Hold up what comes (``stall``), break off what stands (``cut``), or take nothing new
        either (``refuse``)."""

    async def heal(self) -> None:
        """Let everything through again."""


class Node:
    """A server process that is killed, paused and started again."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.orphans: list[str] = []
        """Processes that outlived the one that had started them."""
        self.pids: set[int] = set()
        """All that it has been."""
        self.up = False
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        async with self._changing:
            await self._start()

    async def kill(self, seconds: float) -> None:
        """``kill -9``, and start again after so many seconds."""
        async with self._changing:
            self.up = False
            await asyncio.to_thread(self._kill)
            await asyncio.sleep(seconds)
            await self._start()

    async def pause(self, seconds: float) -> None:
        """Let the process stand still; it may be killed meanwhile."""
        async with self._changing:
            process = self.served.process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Stop it in good order; nothing of it may live then."""
        async with self._changing:
            members = family(self.served.pid)
            code = await asyncio.to_thread(self.served.stop)
            if code != 0:
                self.orphans.append(f"a node ended with {code}")
            await asyncio.to_thread(self._all_gone, members)

    async def _start(self) -> None:
        """Start it as a supervisor does: again, where the database was away."""
        while not self.up:
            try:
                await asyncio.to_thread(self.served.start)
                self.pids.add(self.served.pid)
            except AssertionError:
                process = self.served.process
                last = self.served.log.rstrip().rpartition("\n")[2]
                was_away = any(words in last for words in _AWAY)
                if process is None or process.poll() is None or not was_away:
                    raise
                await asyncio.sleep(_AGAIN)
            else:
                self.up = True

    def end(self) -> None:
        """Leave no process behind, whatever has gone wrong; nothing happens after ``stop``."""
        process = self.served.process
        if process is not None and process.poll() is None:
            self.served.kill()

    def _kill(self) -> None:
        members = family(self.served.pid)
        self.served.kill()
        self._all_gone(members)

    def _all_gone(self, members: set[int]) -> None:
        try:
            wait_until(lambda: not any(alive(pid) for pid in members), _ORPHANS_GO, "their end")
        except AssertionError:
            left = [pid for pid in members if alive(pid)]
            self.orphans.append(f"processes {left} outlived node {self.served.data.name}")


@dataclass(slots=True)
class World:
    """All there is to break."""

    nodes: Sequence[Node]
    database: Breakable | None = None
    broker: Breakable | None = None
    ways: Mapping[tuple[int, Side], Partable] = field(default_factory=dict)
    happened: Counter[str] = field(default_factory=Counter)
    """How many faults of each kind there have been."""
    _one_at_a_time: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def suffer(self, faults: Sequence[Fault], duration: float) -> None:
        """Let every fault happen in its time; return when the time is over and all is in order
        again.

        Time passes while a node serves: on a slow machine, where starting takes long, clients have
        as much of it.
        """
        loop = asyncio.get_running_loop()
        left = list(faults)
        served, seen = 0.0, loop.time()
        async with asyncio.TaskGroup() as group:
            while served < duration:
                await asyncio.sleep(_TICK)
                now = loop.time()
                served += now - seen if any(node.up for node in self.nodes) else 0.0
                seen = now
                while left and left[0].at <= served:
                    group.create_task(self._happen(left.pop(0)))

    async def _happen(self, fault: Fault) -> None:
        async with asyncio.timeout(_PUT_BACK):
            await self._break(fault)
        self.happened[fault.kind] += 1

    async def _break(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                await self.nodes[fault.node].kill(fault.seconds)
            case "pause":
                await self.nodes[fault.node].pause(fault.seconds)
            case "partition":
                way = self.ways[fault.node, fault.side]
                async with self._alone(f"{fault.node} {fault.side}"):
                    await way.part(fault.way)
                    try:
                        await asyncio.sleep(fault.seconds)
                    finally:
                        await way.heal()
            case "broker" | "database":
                broken = self.broker if fault.kind == "broker" else self.database
                assert broken is not None
                async with self._alone(fault.kind):
                    await broken.stop(fault.way)
                    try:
                        await asyncio.sleep(fault.seconds)
                    finally:
                        await broken.start()

    def _alone(self, what: str) -> asyncio.Lock:
        return self._one_at_a_time.setdefault(what, asyncio.Lock())
