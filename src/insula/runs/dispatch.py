"""What happens to runs without anybody asking: the queue is served, the lost are found again, and
what is due is erased.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.runs import recovery, repository, retention
from insula.runs.recovery import resume_claimed
from insula.runs.services import RunServices
from insula.web import idempotency

_log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
RECLAIM_SECONDS = 600.0
_OFFERED = 1_000
_ERASED_AT_ONCE = 200


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


async def begin(services: RunServices, run_id: str) -> None:
    """Begin a queued run, unless it was cancelled or begun meanwhile."""
    unit = partial(repository.begin_pending, run_id=run_id, token=services.token, now=now_ms())
    row = await services.database.write(unit)
    if row is not None:
        await resume_claimed(services, row)


async def sweep_for_ever(services: RunServices) -> None:
    """Once a second: find runs without a living owner, offer what waits."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await sweep(services)
        except InsulaError as error:
            _log.warning("sweep.failed", reason=error.message)


async def sweep(services: RunServices) -> None:
    """Sweep once."""
    if services.draining:
        return
    lost = await services.database.read(services.journal.orphans)
    await recovery.recover(services, lost)
    waiting = await services.database.read(partial(repository.pending, limit=_OFFERED))
    for app_id, run_id in waiting:
        services.queue.offer(app_id, run_id)


async def erase_for_ever(services: RunServices) -> None:
    """Once a second, erase what is due; beside the sweep, which must not wait for it."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await erase_due(services)
            await services.database.write(idempotency.sweep)
        except InsulaError as error:
            _log.warning("erase.failed", reason=error.message)


async def reclaim_for_ever(services: RunServices, reclaim: Callable[[], Awaitable[None]]) -> None:
    """Every now and then: remove files that nobody needs, give space back to the disk."""
    while True:
        try:
            await services.files.sweep()
            await reclaim()
        except InsulaError as error:
            _log.warning("reclaim.failed", reason=error.message)
        await asyncio.sleep(RECLAIM_SECONDS)


async def erase_due(services: RunServices) -> int:
    """Erase what is due, in batches that leave room for others between them; return how many."""
    total = 0
    while True:
        unit = partial(retention.erase_due, now=now_ms(), limit=_ERASED_AT_ONCE)
        erased = await services.database.write(unit)
        await services.files.remove(erased.files)
        total += erased.runs
        if erased.runs < _ERASED_AT_ONCE:
            return total


async def shut_down(services: RunServices) -> None:
    """Stop every run without ending it: whoever starts next goes on with them."""
    services.draining = True
    running = list(services.live)
    for live in running:
        live.stop("shutdown")
    tasks = [live.task for live in running if live.task is not None]
    if tasks:
        await asyncio.wait(tasks)
