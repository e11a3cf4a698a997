"""Copies of files for whoever is to keep what a run was given, longer than that run is kept.

A file that came with a run goes with it. A replay, or a test made of the run, gets copies with ids
of their own, which live as long as it does.
"""

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from insula.adapters.blobs.port import MissingBlob
from insula.errors import Conflict
from insula.files import extractions, repository
from insula.files.extractions import ExtractionRow
from insula.files.repository import FileRow
from insula.files.store import TEMPORARY_MS, FileStore, remove_bytes
from insula.files.urls import named_in
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.tasks import uninterrupted

NAMED_MAX = 10_000
"""Files that are copied at most; of more, the ids stay as they are."""
_TOGETHER = 8


class _Family(NamedTuple):
    """Files, with what came of them, and what was, or is, extracted."""

    files: list[FileRow]
    extractions: list[tuple[ExtractionRow, bytes | None]]


async def copy_held(
    store: FileStore, app_id: str, holder: str, texts: Sequence[bytes]
) -> list[bytes]:
    """Copy an app's files that go with runs, as far as these texts of JSON name them, for another
    holder: the id of a run, or of a test. Return the texts with the copies' ids and addresses.

    A copy whose holder is not there a day later is removed.

    Raises:
        Conflict: a file was erased meanwhile.
        Unavailable: the storage is full or broken.
    """
    named: set[str] = set()
    for text in texts:
        named |= named_in(text)
    if not named:
        return list(texts)
    some = sorted(named)[:NAMED_MAX]
    found = await store.database.read(partial(_family, app_id=app_id, file_ids=some))
    if not found.files:
        return list(texts)
    ids = {row.id: new_id("file") for row in found.files}
    try:
        await _copy_bytes(store, ids)
        made = [_copied(row, ids, holder) for row in found.files]
        document = partial(_documents, store, found, ids)
        insert = partial(_insert, rows=made, read=await asyncio.to_thread(document))
    except BaseException as error:
        await uninterrupted(remove_bytes(store, list(ids.values())))
        if isinstance(error, MissingBlob):
            raise Conflict("The run's files were erased; start a new run") from None
        raise
    try:
        # A cancel in the middle would leave it open whether there are rows for the bytes.
        await uninterrupted(store.database.write(insert))
    except Exception:
        await uninterrupted(remove_bytes(store, list(ids.values())))
        raise
    store.wished.set()
    return [store.urls.moved(text, ids) for text in texts]


def _family(connection: Connection, app_id: str, file_ids: Collection[str]) -> _Family:
    files = repository.find_held(connection, app_id, file_ids)
    read = extractions.find_whole(connection, [row.id for row in files])
    return _Family(files, read)


async def _copy_bytes(store: FileStore, ids: dict[str, str]) -> None:
    turns = asyncio.Semaphore(_TOGETHER)

    async def copy(old: str, new: str) -> None:
        async with turns:
            await store.blobs.copy(old, new)

    try:
        async with asyncio.TaskGroup() as group:
            for old, new in ids.items():
                group.create_task(copy(old, new))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


def _copied(row: FileRow, ids: dict[str, str], holder: str) -> FileRow:
    now = now_ms()
    return msgspec.structs.replace(
        row,
        id=ids[row.id],
        run_id=holder,
        parent_id=None if row.parent_id is None else ids[row.parent_id],
        created_at=now,
        expires_at=now + TEMPORARY_MS,  # until it is seen that its holder is there
    )


def _documents(
    store: FileStore, found: _Family, ids: dict[str, str]
) -> list[tuple[ExtractionRow, bytes | None]]:
    """Return the extractions of the copies; what is only being read is read for itself."""
    made = []
    for row, packed in found.extractions:
        fresh = msgspec.structs.replace(row, file_id=ids[row.file_id], owner=None, attempts=0)
        text = None if packed is None else extractions.unpacked(packed)
        own = None if text is None else extractions.packed(store.urls.moved(text, ids))
        made.append((fresh, own))
    return made


def _insert(
    connection: Connection,
    rows: list[FileRow],
    read: list[tuple[ExtractionRow, bytes | None]],
) -> None:
    for row in rows:
        repository.insert_file(connection, row)
    for extraction, document in read:
        extractions.insert_whole(connection, extraction, document)
