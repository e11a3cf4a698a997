"""What happens to runs without anybody asking: the queue is served, the lost are found again, and
what is too old goes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from insula.errors import InsulaError, TooMany
from insula.journal.lease import count_living, remove_lapsed
from insula.kit.clock import now_ms
from insula.runs import pace, recovery, repository, retention
from insula.runs.cluster import RUN, Cluster
from insula.runs.nodes import give_up
from insula.runs.services import RunServices
from insula.storage import counters

_log = structlog.get_logger(__name__)

RECLAIM_SECONDS = 600.0
STALLED_SECONDS = 1.5
"""How long something may wait to be stored before no new run is taken."""
_OFFERED = 1_000
"""Of the runs that wait, the oldest ones that one sweep looks at."""
_REMOVED_AT_ONCE = 200
_LOOKED_AT_ONCE = 2_000
_GATHERED_AT_ONCE = 20
_DAY_MS = 24 * 60 * 60 * 1000


async def serve_queue(services: RunServices) -> None:
    """Begin queued runs as there is room, the apps in turn; for ever."""
    while True:
        await services.queue.arrived()
        while not services.draining:
            run_id = services.queue.take(services.live.may_begin)
            if run_id is None:
                break
            try:
                await begin(services, run_id)
            except InsulaError as error:
                _log.warning("queue.not_begun", run_id=run_id, reason=error.message)
            except Exception:  # one run's defect must not hold up the others
                _log.exception("queue.broke", run_id=run_id)


async def serve_hints(services: RunServices, cluster: Cluster) -> None:
    """Begin runs that wait at other nodes while there is room here; for ever."""

    def has_room() -> bool:
        return not services.draining and services.can_store and not services.live.is_full()

    async def take(app_id: str, run_id: str) -> None:
        # Where the app has its share already the hint is let go: the sweepers offer the run again.
        if has_room() and services.live.may_begin(app_id):
            await begin(services, run_id)

    await cluster.jobs.work(RUN, has_room, take)


async def watch_storage(services: RunServices) -> None:
    """Notice that nothing can be stored: take no new runs, and in the end give up those that wait;
    for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(STALLED_SECONDS / 3)
        services.stalled = bool(services.journal.stalled(loop.time() - STALLED_SECONDS))
        give_up(services, loop.time() - services.patience)


async def begin(services: RunServices, run_id: str) -> None:
    """Begin a queued run; leave it where its workflow's owner allows the caller no more now.

    One whose cancel was requested is ended.
    """
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None or row.status != "PENDING":
        return
    if row.cancel_requested_at is not None:
        await recovery.take_over(services, run_id)
        return
    facts = await services.resolver.facts(row.workflow_id)
    limit = None if facts is None or row.app_id == facts.app_id else facts.caller_limit
    if not services.live.allows_caller(row.app_id, row.workflow_id, limit):
        return  # the sweeper offers it again
    async with services.live.alone(run_id):
        unit = partial(
            repository.begin_pending,
            run_id=run_id,
            token=services.token,
            now=now_ms(),
            app_max=services.live.app_maximum,
        )
        try:
            begun = await services.database.write(unit)
        except TooMany:
            services.live.fill(row.app_id)
            services.queue.offer(row.app_id, run_id)
            return
        if begun is not None:
            services.begun += 1
            await recovery.resume(services, begun)


async def sweep_for_ever(services: RunServices) -> None:
    """Once a second (of many nodes each less often), or when asked: find runs without a living
    owner, offer what waits."""
    while True:
        try:
            async with asyncio.timeout(services.sweep_in):
                await services.sweep_wanted.wait()
            await asyncio.sleep(pace.spread(services.living))
        except TimeoutError:
            pass  # it is time
        services.sweep_wanted.clear()
        try:
            await sweep(services)
        except InsulaError as error:
            _log.warning("sweep.failed", reason=error.message)
        except Exception:  # it comes round again; a server without sweeper would be worse
            _log.exception("sweep.broke")


async def sweep(services: RunServices) -> None:
    """Sweep once."""
    if services.draining:
        return
    lost = await services.database.read(services.journal.orphans)
    random.shuffle(lost)  # so that several nodes do not all try the same ones
    taken = await recovery.recover(services, [*lost, *await _forgotten(services)])
    services.live.reconsider()
    more = await _offer(services)
    services.queue.wake()
    if services.cluster is not None:
        count = partial(count_living, watch=services.journal.database_clock)
        services.living = await services.database.read(count)
    services.sweep_in = pace.period(services.living, hurried=more or taken < len(lost))
    services.swept_at = asyncio.get_running_loop().time()


async def _forgotten(services: RunServices) -> list[str]:
    """Return the runs that stand under this process and that it has not executed for two sweeps."""
    owned = await services.database.read(partial(repository.owned_by, token=services.token))
    idle = {
        run_id
        for run_id in owned
        if services.live.get(run_id) is None and not services.live.is_taken(run_id)
    }
    forgotten = idle & services.idle_before
    services.idle_before = idle
    return sorted(forgotten)


async def _offer(services: RunServices) -> bool:
    """Offer runs that wait to the queue; say whether there were more that might have begun here.

    A node alone offers them all, each sweep going on where the last one stopped. One of many offers
    what it may have room for, some of the oldest, and passes over those whose apps have none.
    """
    query = partial(repository.pending, after=services.offered_to, limit=_OFFERED)
    waiting = await services.database.read(query)
    more = len(waiting) == _OFFERED
    last = waiting[-1][1] if more else ""
    if services.cluster is None:
        services.offered_to = last
    else:
        waiting = [found for found in waiting if services.live.may_begin(found[0])]
        free = services.live.free()
        most = pace.wanted(free, services.begun, len(services.queue))
        services.begun = 0
        chosen = pace.choose(waiting, most)
        cut = len(chosen) < len(waiting)
        services.offered_to = "" if cut else last
        more = free > 0 and (more or cut)
        waiting = chosen
    for app_id, run_id in waiting:
        services.queue.offer(app_id, run_id)
    return more


async def reclaim_for_ever(services: RunServices, reclaim: Callable[[], Awaitable[None]]) -> None:
    """Every now and then: remove files that nobody needs, give space back to the disk."""
    rows = OldRows()
    while True:
        try:
            await services.files.sweep()
            await remove_old_rows(services, rows)
            await gather_counters(services)
            watch = services.journal.database_clock
            lapsed = partial(remove_lapsed, token=services.token, watch=watch)
            await services.database.write(lapsed)
            await reclaim()
        except (InsulaError, OSError) as error:
            _log.warning("reclaim.failed", reason=str(error))
        await asyncio.sleep(RECLAIM_SECONDS)


@dataclass(slots=True)
class OldRows:
    """How far a process has gone through the rows that are too old even for lists.

    It goes on from there, and through all of them again once a day: those that were kept may have
    been erased meanwhile.
    """

    begun: int = 0
    """When it last went from the first one on (Unix ms)."""
    after: str = ""


async def remove_old_rows(services: RunServices, place: OldRows | None = None) -> None:
    """Remove the rows of runs that were erased and are too old even for lists."""
    place, now = place or OldRows(), now_ms()
    if now - place.begun >= _DAY_MS:
        place.begun, place.after = now, ""
    before = now - services.rows_days * _DAY_MS
    more = True
    while more:
        look = partial(retention.find_old, before=before, after=place.after, limit=_LOOKED_AT_ONCE)
        old = await services.database.read(look)
        for start in range(0, len(old.erased), _REMOVED_AT_ONCE):
            some = old.erased[start : start + _REMOVED_AT_ONCE]
            await services.database.write(partial(retention.remove_rows, run_ids=some))
        more = old.last is not None
        place.after = old.last or place.after


async def gather_counters(services: RunServices) -> None:
    """Put each counter's slots together: every node that ever was has counted in one."""
    after: counters.Key | None = None
    while True:
        look = partial(counters.scattered, after=after, limit=_GATHERED_AT_ONCE)
        if not (found := await services.database.read(look)):
            return
        await services.database.write(partial(counters.gather, keys=found))
        after = found[-1]


async def drain(services: RunServices, seconds: float, hurry: asyncio.Event) -> None:
    """Begin no more runs, and give those that are live some seconds to end; less in a ``hurry``."""
    services.draining = True
    _log.info("draining", live=len(services.live), seconds=seconds)
    hurried = asyncio.ensure_future(hurry.wait())
    try:
        async with asyncio.timeout(seconds):
            while (running := list(services.live)) and not hurried.done():
                ended: list[asyncio.Future[Any]] = [hurried]
                ended += [live.finished for live in running]
                await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass  # the others are stopped where they are
    finally:
        hurried.cancel()


async def shut_down(services: RunServices) -> None:
    """Stop every run without ending it, and telling of runs: whoever goes on with them, here or at
    another node, does so from what is stored by then."""
    services.draining = True
    loop = asyncio.get_running_loop()
    until = loop.time() + services.stop_within
    while (running := list(services.live)) and loop.time() < until:
        for live in running:
            live.stop("shutdown")
        finished = [live.finished for live in running]
        await asyncio.wait(finished, timeout=until - loop.time())
    for live in services.live:
        _log.error("shutdown.not_stopped", run_id=live.row.id)
    await services.journal.close()
