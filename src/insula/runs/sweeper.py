"""The sweeper of a node: finds runs without a living owner, and offers what waits to the queue."""

import asyncio
import random
from dataclasses import dataclass, field
from functools import partial

import structlog

from insula.errors import InsulaError
from insula.journal.lease import count_living
from insula.runs import pace, recovery, repository
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)

_OFFERED = 1_000
"""Of the runs that wait, the oldest ones that one sweep looks at."""


@dataclass(slots=True)
class Sweeper:
    """Comes round once a second; of many nodes each less often."""

    services: RunServices
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where runs have just lost their owner, so that nobody waits for the next sweep."""
    swept_at: float = 0.0
    """When it last came round, in the loop's time."""
    period: float = pace.SWEEP_SECONDS
    """Seconds until it comes round again."""
    _begun_at: float = float("-inf")
    """When it last began to come round, whatever came of it."""
    _idle: set[str] = field(default_factory=set)
    """Runs that the last sweep found under this process, and not executed."""
    _left: frozenset[str] = frozenset()
    """Runs without a living owner that the last sweep left to other nodes, for want of room."""
    _offered_to: str = ""
    """The last run that waits which the last sweep offered."""

    async def run(self) -> None:
        """Sweep when it is time, or when asked; for ever."""
        while True:
            try:
                async with asyncio.timeout(self.period):
                    await self.wanted.wait()
                await asyncio.sleep(max(self._apart(), pace.spread(self.services.nodes)))
            except TimeoutError:
                pass  # it is time
            self.wanted.clear()
            self._begun_at = asyncio.get_running_loop().time()
            try:
                await self.sweep()
            except InsulaError as error:
                _log.warning("sweep.failed", reason=error.message)
            except Exception:  # it comes round again; a server without sweeper would be worse
                _log.exception("sweep.broke")

    def _apart(self) -> float:
        """Return in how many seconds it may begin again."""
        return self._begun_at + pace.APART - asyncio.get_running_loop().time()

    async def sweep(self) -> None:
        """Sweep once."""
        services = self.services
        if services.draining:
            return
        lost = await services.database.read(services.journal.orphans)
        random.shuffle(lost)  # so that several nodes do not all try the same ones
        found = [*lost, *await self._forgotten()]
        recovered = await recovery.recover(services, found, left_before=self._left)
        self._left = recovered.left
        services.live.reconsider()
        more = await self._offer()
        services.queue.wake()
        if services.cluster is not None:
            count = partial(count_living, watch=services.journal.database_clock)
            services.cluster.nodes = await services.database.read(count)
        self.period = pace.period(services.nodes, hurried=more or recovered.count < len(lost))
        self.swept_at = asyncio.get_running_loop().time()

    async def _forgotten(self) -> list[str]:
        """Return the runs that stand under this process and that it has not executed for two
        sweeps."""
        services = self.services
        owned = await services.database.read(partial(repository.owned_by, token=services.token))
        idle = {
            run_id
            for run_id in owned
            if services.live.get(run_id) is None and not services.live.is_taken(run_id)
        }
        forgotten = idle & self._idle
        self._idle = idle
        return sorted(forgotten)

    async def _offer(self) -> bool:
        """Offer runs that wait; say whether there were more that might have begun here.

        A node alone offers them all, each sweep going on where the last one stopped. One of many
        offers what it may have room for, some of the oldest, and passes over those whose apps have
        none.
        """
        services = self.services
        query = partial(repository.pending, after=self._offered_to, limit=_OFFERED)
        waiting = await services.database.read(query)
        more = len(waiting) == _OFFERED
        last = waiting[-1][1] if more else ""
        if services.cluster is None:
            self._offered_to = last
        else:
            waiting = [found for found in waiting if services.live.may_begin(found[0])]
            free = services.live.free()
            most = pace.wanted(free, services.live.take_begun(), len(services.queue))
            chosen = pace.choose(waiting, most)
            cut = len(chosen) < len(waiting)
            # On, too, where not all were chosen: what an app has too much of would hide the rest.
            self._offered_to = last
            more = free > 0 and (more or cut)
            waiting = chosen
        for app_id, run_id in waiting:
            services.queue.offer(app_id, run_id)
        return more
