"""Cancelling records: one committed row first, then every run of theirs stops, then the answer."""

import asyncio
from functools import partial

from sqlalchemy import Connection

from insula.collections import record_repository
from insula.collections.advance import conclude, request_cancel
from insula.collections.services import RecordServices
from insula.errors import Unavailable
from insula.runs.cancel import cancel_many
from insula.web.auth import Principal, unknown

_TRIES = 3
_AT_ONCE = 8


async def cancel(
    services: RecordServices, principal: Principal, collection_id: str | None, record_id: str
) -> None:
    """Cancel the analysis of a record, and return when all of it has stopped.

    A record that is not being analysed stays as it is.

    Raises:
        NotFound: there is no such record.
        Unavailable: a run has not stopped in time; the cancel stays requested.
    """
    find = partial(
        record_repository.find,
        app_id=principal.app_id,
        collection_id=collection_id,
        record_id=record_id,
    )
    if await services.runs.database.read(find) is None:
        raise unknown()
    await stop(services, record_id, principal.key_id)


async def stop(
    services: RecordServices, record_id: str, by: str, analysis: int | None = None
) -> None:
    """Stop whatever an analysis of a record runs, and end it: the one of this number, or else
    the one that is going on. One that begins afterwards goes on.

    Raises:
        Unavailable: a run has not stopped in time.
    """
    database = services.runs.database
    for _ in range(_TRIES):
        ask = partial(_ask, record_id=record_id, by=by, analysis=analysis)
        asked = await database.write(ask)
        if asked is None:
            return
        analysis, running = asked
        if running:
            await cancel_many(services.runs, running, by)
        end = partial(conclude, services, record_id=record_id, analysis=analysis)
        if await database.write(end):
            services.rests(record_id)
            return
    raise Unavailable(
        "The record's runs have not all stopped; its cancel stays requested. Ask again.",
        retry_after=5,
    )


def _ask(
    connection: Connection, *, record_id: str, by: str, analysis: int | None
) -> tuple[int, list[str]] | None:
    """Ask for the cancel of an analysis; return its number and what it runs, ``None`` if it has
    ended."""
    row = record_repository.by_id(connection, record_id)
    if row is None or not row.is_live or analysis not in (None, row.analysis):
        return None
    return row.analysis, request_cancel(connection, row=row, by=by)


async def stop_collection(services: RecordServices, collection_id: str, by: str) -> None:
    """Stop every record of a collection in which nothing begins any more.

    Raises:
        Unavailable: some have not stopped.
    """
    query = partial(record_repository.live_in, collection_id=collection_id)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(record_id: str) -> None:
        async with gate:
            await stop(services, record_id, by)

    while live := await services.runs.database.write(query):
        try:
            async with asyncio.TaskGroup() as group:
                for record_id in live:
                    group.create_task(one(record_id))
        except* Unavailable as errors:
            raise errors.exceptions[0] from None
