"""Copies for another holder: bytes and rows together, whatever comes in between."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import select

from insula.errors import Unavailable
from insula.files.copies import copy_held
from insula.files.store import FileStore, Wanted, store_file
from insula.kit import json
from insula.storage import tables
from insula.storage.database import Database


async def _chunks():
    yield b"x"


class _Waits:
    """A database whose writes wait; one that was submitted is done, whoever awaits it or not."""

    def __init__(self, database: Database, error: Exception | None = None) -> None:
        self._database = database
        self._error = error
        self.asked, self.open = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, unit: Any) -> Any:
        return await asyncio.shield(asyncio.create_task(self._write(unit)))

    async def _write(self, unit: Any) -> Any:
        self.asked.set()
        await self.open.wait()
        if self._error is not None:
            raise self._error
        return await self._database.write(unit)


async def _copied(store: FileStore, database: _Waits, *, cancel: bool) -> None:
    row = await store_file(store, Wanted("app_1", storage="TEMPORARY", run_id="run_1"), _chunks())
    waits = replace(store, database=cast("Database", database))
    copying = asyncio.create_task(
        copy_held(waits, "app_1", "run_2", [json.encode({"doc": {"id": row.id}})])
    )
    await database.asked.wait()
    if cancel:
        copying.cancel()
        await asyncio.wait([copying], timeout=0.05)
    database.open.set()
    await copying


async def _ids(store: FileStore, holder: str) -> set[str]:
    query = select(tables.files.c.id).where(tables.files.c.run_id == holder)
    return set(await store.database.read(lambda connection: list(connection.scalars(query))))


async def test_a_cancel_leaves_no_rows_without_bytes(store, on_disk) -> None:
    with pytest.raises(asyncio.CancelledError):
        await _copied(store, _Waits(store.database), cancel=True)
    copies = await _ids(store, "run_2")
    assert len(copies) == 1
    assert on_disk() == copies | await _ids(store, "run_1")


async def test_rows_that_are_not_stored_take_the_bytes_with_them(store, on_disk) -> None:
    with pytest.raises(Unavailable):
        await _copied(store, _Waits(store.database, Unavailable("no")), cancel=False)
    assert await _ids(store, "run_2") == set()
    assert on_disk() == await _ids(store, "run_1")
