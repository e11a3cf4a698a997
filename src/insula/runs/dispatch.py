"""How runs that wait begin, and how a node lets its runs go as it stops."""

import asyncio
from functools import partial
from typing import Any

import structlog

from insula.errors import InsulaError, TooMany
from insula.kit.clock import now_ms
from insula.runs import recovery, repository
from insula.runs.cluster import RUN, Cluster
from insula.runs.nodes import give_up
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)

STALLED_SECONDS = 1.5
"""How long something may wait to be stored before no new run is taken."""


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
            services.live.begun += 1
            await recovery.resume(services, begun)


async def drain(services: RunServices, seconds: float, hurry: asyncio.Event) -> None:
    """Begin no more runs, and give those that are live some seconds to end; less in a ``hurry``."""
    services.draining = True
    if len(services.live):
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
