"""Rows of ``files``. The bytes stand elsewhere, under the row's id."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from insula.files import extractions
from insula.files.wish import Wish
from insula.storage.tables import files, records, runs, workflow_tests

COUNTED = 10_000
"""How far a list's count goes."""

_IDS_A_STATEMENT = 500


class FileRow(msgspec.Struct, frozen=True):
    """One file, as its row has it. Times are Unix milliseconds."""

    id: str
    app_id: str
    filename: str
    mimetype: str
    size: int
    storage: str
    visibility: str
    created_at: int
    expires_at: int | None = None
    run_id: str | None = None
    parent_id: str | None = None
    """The document of which it is a page, or a picture."""


_COLUMNS = [files.c[field] for field in FileRow.__struct_fields__]


def insert_file(connection: Connection, row: FileRow, wish: Wish | None = None) -> None:
    """Insert a row, and what is to be extracted from the file."""
    connection.execute(insert(files).values(msgspec.structs.asdict(row)))
    if wish is not None and wish.anything:
        extractions.begin(connection, row.id, row.app_id, row.mimetype, wish)


def find_file(connection: Connection, file_id: str, app_id: str | None = None) -> FileRow | None:
    """Find a file; with ``app_id``, only if it is that app's."""
    query = select(*_COLUMNS).where(files.c.id == file_id)
    if app_id is not None:
        query = query.where(files.c.app_id == app_id)
    row = connection.execute(query).first()
    return None if row is None else FileRow(*row)


def find_held(connection: Connection, app_id: str, file_ids: Collection[str]) -> list[FileRow]:
    """Find which of these an app has only as long as their holder, with what came of them."""
    held = (files.c.app_id == app_id) & (files.c.storage == "TEMPORARY")
    held &= files.c.run_id.is_not(None)
    found: dict[str, FileRow] = {}
    for batch in _batches(list(file_ids)):
        named = select(func.coalesce(files.c.parent_id, files.c.id)).where(
            held, files.c.id.in_(batch)
        )
        roots = list(connection.scalars(named.distinct()))
        for which in (files.c.id.in_(roots), files.c.parent_id.in_(roots)):
            rows = connection.execute(select(*_COLUMNS).where(held, which))
            found.update((row.id, FileRow(*row)) for row in rows)
    return [row for row in found.values() if row.parent_id is None or row.parent_id in found]


def list_files(
    connection: Connection, app_id: str, take: int, offset: int = 0, before: str | None = None
) -> tuple[list[FileRow], int]:
    """List an app's files, newest first, with their number, counted up to ``COUNTED`` + 1.

    What came of a document, its pages and pictures, is not listed beside it.
    """
    mine = (files.c.app_id == app_id) & files.c.parent_id.is_(None)
    query = select(*_COLUMNS).where(mine).order_by(files.c.id.desc())
    if before is not None:
        query = query.where(files.c.id < before)
    rows = connection.execute(query.limit(take).offset(offset)).all()
    some = select(files.c.id).where(mine).limit(COUNTED + 1).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return [FileRow(*row) for row in rows], count


def delete_file(connection: Connection, app_id: str, file_id: str) -> list[str]:
    """Delete an app's file and what came of it; return the keys of the bytes to delete then."""
    return _delete(connection, (files.c.id == file_id) & (files.c.app_id == app_id))


def delete_children(connection: Connection, file_id: str) -> list[str]:
    """Delete what came of a document; return the keys of the bytes to delete then."""
    return _delete(connection, files.c.parent_id == file_id)


def delete_abandoned_children(connection: Connection, file_id: str) -> list[str]:
    """Delete what came of a document that nobody will finish; return the keys to delete then."""
    mine = files.c.parent_id == file_id
    return _delete(connection, mine & ~extractions.finishing(file_id).exists())


def delete_run_files(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Delete the temporary files of runs; return the keys of the bytes to delete after the commit.

    If the process dies in between, the sweep of orphans deletes them.
    """
    gone: list[str] = []
    for batch in _batches(run_ids):
        gone += _delete(connection, files.c.run_id.in_(batch) & (files.c.storage == "TEMPORARY"))
    return gone


def some_of_app(connection: Connection, app_id: str, limit: int = 1000) -> list[str]:
    """Find up to ``limit`` files of an app."""
    return list(connection.scalars(select(files.c.id).where(files.c.app_id == app_id).limit(limit)))


def delete_files(connection: Connection, file_ids: Sequence[str]) -> list[str]:
    """Delete files; return the keys of all bytes to delete, those of their parts included."""
    gone: list[str] = []
    for batch in _batches(file_ids):
        gone += _delete(connection, files.c.id.in_(batch))
    return gone


def delete_expired(connection: Connection, now: int, limit: int = 1000) -> tuple[int, list[str]]:
    """Look at up to ``limit`` files whose time is over, and delete those that nothing holds.

    A file that came in with a run's input lives as long as the run's data, one of a test or a
    record as long as that; if there is no such run, test or record, it was never created. Returns
    how many were looked at, and the keys of the bytes to delete.
    """
    due = connection.execute(
        select(files.c.id, files.c.run_id).where(files.c.expires_at <= now).limit(limit)
    ).all()
    held = _holders(connection, list({row.run_id for row in due if row.run_id is not None}))
    for batch in _batches([row.id for row in due if row.run_id in held]):
        connection.execute(update(files).where(files.c.id.in_(batch)).values(expires_at=None))
    gone: list[str] = []
    for batch in _batches([row.id for row in due if row.run_id not in held]):
        gone += _delete(connection, files.c.id.in_(batch))
    return len(due), gone


def _holders(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Say which of these runs, tests and records still have what was given to them."""
    held: set[str] = set()
    for batch in _batches(ids):
        live = select(runs.c.id).where(runs.c.id.in_(batch), runs.c.erased_at.is_(None))
        held.update(connection.scalars(live))
        for table in (workflow_tests, records):
            held.update(connection.scalars(select(table.c.id).where(table.c.id.in_(batch))))
    return held


def known_files(connection: Connection, file_ids: Collection[str]) -> set[str]:
    """Say which of these files have a row."""
    found: set[str] = set()
    for batch in _batches(list(file_ids)):
        found.update(connection.scalars(select(files.c.id).where(files.c.id.in_(batch))))
    return found


def _delete(connection: Connection, which: Any) -> list[str]:
    gone = list(connection.scalars(delete(files).where(which).returning(files.c.id)))
    for batch in _batches(gone):
        came_of_them = delete(files).where(files.c.parent_id.in_(batch)).returning(files.c.id)
        gone.extend(connection.scalars(came_of_them))
    return gone


def _batches(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[at : at + _IDS_A_STATEMENT] for at in range(0, len(ids), _IDS_A_STATEMENT)]
