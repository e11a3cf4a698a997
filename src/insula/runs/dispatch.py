"""What happens to runs without anybody asking: the queue is served, the lost are found again, and
what is too old goes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.runs import recovery, repository, retention
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
RECLAIM_SECONDS = 600.0
_OFFERED = 1_000
_REMOVED_AT_ONCE = 200
_DAY_MS = 24 * 60 * 60 * 1000


async def serve_queue(services: RunServices) -> None:
    """Begin queued runs as there is room, the apps in turn; for ever."""
    while True:
        await services.queue.arrived()
        while not services.draining:
            run_id = services.queue.take(services.live.has_room)
            if run_id is None:
                break
            try:
                await begin(services, run_id)
            except InsulaError as error:
                _log.warning("queue.not_begun", run_id=run_id, reason=error.message)
            except Exception:  # one run's defect must not hold up the others
                _log.exception("queue.broke", run_id=run_id)


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
        unit = partial(repository.begin_pending, run_id=run_id, token=services.token, now=now_ms())
        begun = await services.database.write(unit)
        if begun is not None:
            await recovery.resume(services, begun)


async def sweep_for_ever(services: RunServices) -> None:
    """Once a second: find runs without a living owner, offer what waits."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
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
    await recovery.recover(services, [*lost, *await _forgotten(services)])
    await _offer(services)
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


async def _offer(services: RunServices) -> None:
    """Offer the next of the runs that wait: each sweep goes on where the last one stopped."""
    query = partial(repository.pending, after=services.offered_to, limit=_OFFERED)
    waiting = await services.database.read(query)
    for app_id, run_id in waiting:
        services.queue.offer(app_id, run_id)
    services.offered_to = waiting[-1][1] if len(waiting) == _OFFERED else ""


async def reclaim_for_ever(services: RunServices, reclaim: Callable[[], Awaitable[None]]) -> None:
    """Every now and then: remove files that nobody needs, give space back to the disk."""
    while True:
        try:
            await services.files.sweep()
            await remove_old_rows(services)
            await reclaim()
        except (InsulaError, OSError) as error:
            _log.warning("reclaim.failed", reason=str(error))
        await asyncio.sleep(RECLAIM_SECONDS)


async def remove_old_rows(services: RunServices) -> None:
    """Remove the rows of runs that were erased and are too old even for lists."""
    before = now_ms() - services.rows_days * _DAY_MS
    after: str | None = ""
    while after is not None:
        unit = partial(retention.remove_rows, before=before, after=after, limit=_REMOVED_AT_ONCE)
        after = await services.database.write(unit)


async def shut_down(services: RunServices) -> None:
    """Stop every run without ending it: whoever starts next goes on with them."""
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
