"""Several nodes in this process: over one PostgreSQL database, with messages that tests can cut."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.runs.platform import Caller, Platform, open_platform

from insula import app as composition
from insula.jobs.memory_jobs import MemoryJobs, SharedHints
from insula.jobs.memory_signals import Exchange, MemorySignals
from insula.jobs.transport import Transport
from insula.journal.lease import Lease


class Node:
    """One node, and its ways to the others."""

    def __init__(self, platform: Platform, signals: MemorySignals, jobs: MemoryJobs) -> None:
        assert platform.insula.membership is not None
        self.platform = platform
        self.services = platform.services
        self.sweeper = platform.sweeper
        self.acme = platform.acme
        self.lease: Lease = platform.insula.membership.lease
        self.signals = signals
        self.jobs = jobs

    def cut(self) -> None:
        """Take the broker away from it."""
        self.signals.cut()
        self.jobs.cut()

    async def lapse(self) -> None:
        """Play that the node was paused for longer than its lease, and has not noticed yet."""
        await self.platform.change(
            "UPDATE nodes SET expires_at = 0 WHERE token = :token", token=self.services.token
        )

    async def owner(self, run_id: str) -> str | None:
        """Read under which token a run stands."""
        rows = await self.platform.rows("SELECT owner FROM runs WHERE id = :id", id=run_id)
        owner: str | None = rows[0][0]
        return owner


class Nodes:
    """Opens nodes, one after another."""

    def __init__(self, folder: Path, url: str, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._url = url
        self._stack = stack
        self._exchange = Exchange()
        self._hints = SharedHints()
        self._callers: tuple[Caller, ...] = ()
        self._count = 0

    async def open(self, stack: AsyncExitStack | None = None, **given: Any) -> Node:
        """Open one more node, to be closed with the stack; all have the same callers."""
        self._count += 1
        signals, jobs = MemorySignals(self._exchange), MemoryJobs(self._hints)

        @asynccontextmanager
        async def transport(url: str | None, installation: str) -> AsyncIterator[Transport]:
            try:
                yield Transport(signals, jobs)
            finally:
                await jobs.close()
                await signals.close()

        real = composition.open_transport
        composition.open_transport = transport
        folder = self._folder / str(self._count)
        opening = open_platform(folder, self._callers, database_url=self._url, **given)
        try:
            platform = await (stack or self._stack).enter_async_context(opening)
        finally:
            composition.open_transport = real
        self._callers = (platform.acme, platform.globex)
        # One that has run for some time: it believes what the database says of who lives.
        platform.services.journal.database_clock._settled_at = 0.0
        return Node(platform, signals, jobs)


@asynccontextmanager
async def open_nodes(folder: Path, url: str) -> AsyncIterator[Nodes]:
    """Open a cluster without nodes."""
    async with AsyncExitStack() as stack:
        yield Nodes(folder, url, stack)
