"""Deleting records and collections: what runs for them is stopped first."""

from functools import partial

from sqlalchemy import Connection, delete, update

from insula.collections import counts, record_repository, records, repository
from insula.collections.cancel import stop, stop_collection
from insula.collections.rows import RecordRow
from insula.collections.services import RecordServices
from insula.runs.start import DELETED
from insula.storage.tables import deliveries
from insula.tags import repository as tags
from insula.web.auth import Principal, unknown

_BATCH = 50


async def remove_record(
    services: RecordServices, principal: Principal, collection_id: str | None, record_id: str
) -> None:
    """Delete a record, its files, and the data of its runs.

    Raises:
        NotFound: there is none.
        Unavailable: what it runs has not stopped.
    """
    database, app_id = services.runs.database, principal.app_id
    find = partial(
        record_repository.find, app_id=app_id, collection_id=collection_id, record_id=record_id
    )
    while True:
        row = await database.read(find)
        if row is None:
            raise unknown()
        if row.is_live:
            await stop(services, record_id, principal.key_id)
        keys = await database.write(partial(_remove_resting, record_id=record_id))
        if keys is not None:
            await services.runs.files.remove(keys)
            return


def _remove_resting(connection: Connection, *, record_id: str) -> list[str] | None:
    """Remove a record unless it is being analysed again."""
    row = record_repository.by_id(connection, record_id)
    if row is None:
        return []
    if row.is_live:
        return None
    held = _remove(connection, row)
    repository.drop_config(connection, row.config_id)
    return records.remove_files(connection, row.app_id, held)


async def remove_collection(services: RecordServices, app_id: str, collection_id: str) -> None:
    """Delete a collection with all of its records; from its first commit on nobody finds it.

    Raises:
        NotFound: there is none.
        Unavailable: what it runs has not stopped; it is gone on with.
    """
    database = services.runs.database
    close = partial(repository.close, app_id=app_id, collection_id=collection_id)
    if not await database.write(close):
        raise unknown()
    await stop_collection(services, collection_id, DELETED)
    while True:
        keys = await database.write(partial(_remove_some, collection_id=collection_id))
        if keys is None:
            break
        await services.runs.files.remove(keys)
    await database.write(partial(_remove_empty, collection_id=collection_id))


def _remove_empty(connection: Connection, *, collection_id: str) -> None:
    """Remove a collection whose records are gone."""
    repository.remove(connection, collection_id)
    counts.forget(connection, collection_id)


def _remove(connection: Connection, row: RecordRow) -> list[str]:
    """Remove a record, and what webhooks were, or are, to be told of it; return its files."""
    told = deliveries.c.thing_id == row.id
    connection.execute(delete(deliveries).where(told, deliveries.c.next_at.is_not(None)))
    connection.execute(update(deliveries).where(told).values(body=None))
    return record_repository.remove(connection, row)


def _remove_some(connection: Connection, *, collection_id: str) -> list[str] | None:
    """Remove some records of a collection; return the bytes to delete, ``None`` if none is left."""
    some = record_repository.some_in(connection, collection_id, _BATCH)
    keys: list[str] = []
    for row in some:
        held = _remove(connection, row)
        keys += records.remove_files(connection, row.app_id, held)
    return keys if some else None


async def remove_app(services: RecordServices, app_id: str) -> None:
    """Delete every collection of an app, and its tags."""
    database = services.runs.database
    while found := await database.read(partial(repository.ids_of_app, app_id=app_id)):
        for collection_id in found:
            await remove_collection(services, app_id, collection_id)
    await database.write(partial(tags.remove_of_app, app_id=app_id))
