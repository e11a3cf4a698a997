"""One trial: clients work, faults happen, everything settles, and what is left is collected."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.acceptance.harness import Caller, Clients, Served, clients
from tests.acceptance.loopback import Loopback
from tests.acceptance.processes import descriptors, sandboxes
from tests.chaos import work
from tests.chaos.client import Client
from tests.chaos.evidence import (
    Evidence,
    Reading,
    read_counters,
    read_files,
    read_live,
    read_runs,
)
from tests.chaos.faults import World
from tests.chaos.history import FINAL
from tests.chaos.schedule import Fault

CLIENTS = 8
SETTLE = 15.0
"""Seconds after the last fault within which nothing is live any more."""
ENOUGH = 500
"""Runs that are to end; on a slow machine clients go on after the faults until they have."""
_MORE = 60
_ANSWERED = 60.0
_GROWTH = 12
"""Descriptors by which a node may have grown: idle workers, and connections kept for a while."""


class Trial:
    """``connect`` opens the nodes' database, beside them or after they have stopped."""

    def __init__(
        self,
        world: World,
        connect: Callable[[], AbstractContextManager[Reading]],
        loopback: Loopback,
        seed: int,
    ) -> None:
        self.world = world
        self._connect = connect
        self.loopback = loopback
        self.seed = seed
        self.evidence = Evidence()
        self.settled = 0.0
        self._left: list[str] = []

    async def run(self, faults: Sequence[Fault], duration: float) -> Evidence:
        """Let it happen; stop every node; return all that was seen."""
        nodes = self.world.nodes
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            before = [Counter(descriptors(node.served.pid)) for node in nodes]
            async with clients(nodes[0].served) as made:
                await self._live(made, faults, duration)
            for node, held in zip(nodes, before, strict=True):
                self._left += await _grown(node.served, held)
                await node.stop()
                self._left += [*node.orphans, *_odd_files(node.served.data)]
                strays = sandboxes(node.pids)
                self._left += [f"sandboxes {strays} have no node any more"] if strays else []
        finally:
            for node in nodes:
                node.end()
        with self._connect() as connection:
            self.evidence.runs = read_runs(connection)
            self.evidence.counters = read_counters(connection)
            folders = [node.served.data for node in nodes]
            self.evidence.files = read_files(connection, folders)
        self.evidence.arrivals = self.loopback.arrivals
        self.evidence.leftovers = self._left
        return self.evidence

    @property
    def completed(self) -> int:
        """How many runs clients were told the end of."""
        told = (told for history in self.evidence.histories for told in history.told)
        return len({one.run_id for one in told if one.status in FINAL})

    async def _live(self, made: Clients, faults: Sequence[Fault], duration: float) -> None:
        caller = await made.app("Acme")
        callers = [
            Caller(made.session, node.served, caller.app_id, caller.key)
            for node in self.world.nodes
        ]
        paths = await work.deploy(caller, self.loopback.url)
        crowd = [Client(i, self.seed, callers, paths, self.loopback) for i in range(CLIENTS)]
        self.evidence.histories = [client.history for client in crowd]
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            suffering = group.create_task(self.world.suffer(faults, duration))
            living = [group.create_task(client.live(over)) for client in crowd]
            await asyncio.wait([suffering])
            for _ in range(_MORE):
                if self.completed >= ENOUGH:
                    break
                await asyncio.sleep(1.0)
            over.set()
            _, late = await asyncio.wait(living, timeout=_ANSWERED)
            pairs = zip(crowd, living, strict=True)
            waits = [client.waits() for client, task in pairs if task in late]
            assert not late, f"clients were not answered, live are {self._live_runs()}: {waits}"
        self.settled = await self._settle()
        async with asyncio.TaskGroup() as group:
            for client in crowd:
                group.create_task(client.finish())

    async def _settle(self) -> float:
        """Wait until no run is live; return how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        live: list[str] = []
        while loop.time() - began < SETTLE:
            live = await asyncio.to_thread(self._live_runs)
            if not live:
                return loop.time() - began
            await asyncio.sleep(0.05)
        self._left.append(f"after {SETTLE:g} s these are live: {live[:5]}")
        return SETTLE

    def _live_runs(self) -> list[str]:
        with self._connect() as connection:
            return read_live(connection)


async def _grown(served: Served, before: Counter[str]) -> list[str]:
    """Say what a node holds more than at its start, once it has had time to let go."""
    grown: Counter[str] = Counter()
    for _ in range(50):
        grown = Counter(descriptors(served.pid)) - before
        if grown.total() <= _GROWTH:
            return []
        await asyncio.sleep(0.1)
    return [f"{served.data.name} holds {dict(grown)} more than at its start"]


_PASSING = ("server.json", "insula.sock", "-wal", "-shm", ".tmp")
"""How the names of files end that are there only while a node runs."""


def _odd_files(data: Path) -> Iterator[str]:
    """Name what a stopped node has left in its folder and should not have. What a killed one had
    begun to store is swept an hour later.
    """
    for name in sorted(os.listdir(data)):
        if name.startswith(".") or name.endswith(_PASSING):
            yield f"{name} is left in {data.name}"
