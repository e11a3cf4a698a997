"""Cancelling: one committed row first, then everything stops, then the answer.

The answer is the run as it ended. Who asks twice, or too late, gets the same final run.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from sqlalchemy import Connection

from insula.errors import InsulaError, Unavailable
from insula.kit.clock import now_ms
from insula.runs import repository
from insula.runs.listing import unfinished_ids
from insula.runs.live import LiveRun
from insula.runs.ranges import RunFilter
from insula.runs.reach import reach
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.auth import Principal, unknown

_log = structlog.get_logger(__name__)

_AT_ONCE = 64
"""How many runs of a bulk cancel are stopped at the same time."""
_FOUND_AT_ONCE = 1_000


async def cancel(
    services: RunServices,
    principal: Principal,
    workflow_id: str | None,
    run_id: str,
    *,
    own_workflow: bool,
) -> tuple[RunRow, LiveRun | None]:
    """Cancel a run of the caller's app and wait until it has stopped.

    Returns the final row, and the live run if this process executed it.

    Raises:
        NotFound: unknown, another app's, another workflow's.
        Unavailable: something has not stopped in time; the cancel stays requested.
    """
    now = now_ms()

    def unit(connection: Connection) -> RunRow | None:
        row = repository.find_mine(
            connection, run_id, principal.app_id, workflow_id, own_workflow=own_workflow
        )
        if row is None or row.is_final:
            return row
        repository.request_cancel(connection, run_id, principal.key_id, now)
        row.cancel_requested_at = row.cancel_requested_at or now
        row.cancel_requested_by = row.cancel_requested_by or principal.key_id
        return row

    row = await services.database.write(unit)
    if row is None:
        raise unknown()
    if row.is_final:
        return await stop(services, row)
    with services.metrics.cancel_seconds.time():
        return await stop(services, row)


async def stop(services: RunServices, row: RunRow) -> tuple[RunRow, LiveRun | None]:
    """Stop a run whose cancel is stored, wherever it stands, and return it as it ended.

    Raises:
        Unavailable: it has not stopped in time.
    """
    live = services.live.get(row.id)
    if live is None and not row.is_final:
        live = await reach(services, row)
    if live is None:
        return await _stored(services, row.id), None
    if live.row.cancel_requested_at is None:
        live.row.cancel_requested_at = row.cancel_requested_at
        live.row.cancel_requested_by = row.cancel_requested_by
    live.stop("cancel")
    await _stopped(services, live)
    if live.fenced:
        return await _fenced(services, row), None
    return live.row, live


async def _stopped(services: RunServices, live: LiveRun) -> None:
    done, _ = await asyncio.wait([live.finished], timeout=services.stop_within)
    if not done:
        _log.error("cancel.not_stopped", run_id=live.row.id, seconds=services.stop_within)
        raise Unavailable(
            f"The run has not stopped within {services.stop_within:g} s; its cancel stays "
            "requested. Ask again.",
            retry_after=5,
        )


async def _fenced(services: RunServices, row: RunRow) -> RunRow:
    """Stop a run that became another node's while it was being stopped here."""
    if services.cluster is not None and not services.draining:
        found = await services.database.read(partial(repository.find, run_id=row.id))
        if found is not None and not found.is_final and await reach(services, found) is not None:
            raise Unavailable(
                "The run is changing hands; its cancel stays requested", retry_after=1
            )
    return await _stored(services, row.id)


async def _stored(services: RunServices, run_id: str) -> RunRow:
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None:
        raise unknown()
    if not row.is_final:
        raise Unavailable("The run is changing hands; its cancel stays requested", retry_after=2)
    return row


async def cancel_many(services: RunServices, run_ids: Sequence[str], by: str) -> list[str]:
    """Cancel runs, some at a time; return the ids of those that have stopped.

    ``by`` is the key that asked, or a word for what did.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(run_id: str) -> str | None:
        async with gate:
            try:
                row = await services.database.write(partial(_request, run_id=run_id, by=by))
                if row is None:
                    return None
                await stop(services, row)
            except InsulaError as error:
                _log.warning("cancel.not_done", run_id=run_id, reason=error.message)
                return None
            return run_id

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(run_id)) for run_id in run_ids]
    return [run_id for task in tasks if (run_id := task.result()) is not None]


def _request(connection: Connection, run_id: str, by: str) -> RunRow | None:
    repository.request_cancel(connection, run_id, by, now_ms())
    return repository.find(connection, run_id)


async def cancel_workflow(
    services: RunServices, workflow_id: str, by: str, *, callers_of: str | None = None
) -> int:
    """Cancel every run of a workflow, whoever's; return how many have stopped.

    ``callers_of`` leaves the runs of that app alone: its own.
    """
    query = partial(
        repository.unfinished_of_workflow,
        workflow_id=workflow_id,
        not_of=callers_of,
        limit=_FOUND_AT_ONCE,
    )
    return await _cancel_found(services, query, by)


async def cancel_app(services: RunServices, app_id: str, by: str) -> int:
    """Cancel every run of an app; return how many have stopped."""
    query = partial(unfinished_ids, wanted=RunFilter(app_id), limit=_FOUND_AT_ONCE)
    return await _cancel_found(services, query, by)


async def cancel_matching(services: RunServices, wanted: RunFilter, by: str) -> list[str]:
    """Cancel every run that matches; return the ids of those that have stopped.

    What begins meanwhile may go on.

    Raises:
        Unavailable: some have not stopped in time; their cancels stay requested.
    """
    query = partial(unfinished_ids, wanted=wanted, limit=_FOUND_AT_ONCE)
    stopped: list[str] = []
    while True:
        ids = await services.database.write(query)
        found = await cancel_many(services, ids, by)
        stopped += found
        if len(found) < len(ids):
            raise _not_all_stopped()
        if len(ids) < _FOUND_AT_ONCE:
            return stopped


async def _cancel_found(
    services: RunServices, query: Callable[[Connection], list[str]], by: str
) -> int:
    total = 0
    # Asked of the writer: what was submitted before, and may be stored any moment, is seen.
    while ids := await services.database.write(query):
        stopped = await cancel_many(services, ids, by)
        total += len(stopped)
        if not stopped:
            raise _not_all_stopped()
    return total


def _not_all_stopped() -> Unavailable:
    return Unavailable("Some runs have not stopped; ask again", retry_after=5)
