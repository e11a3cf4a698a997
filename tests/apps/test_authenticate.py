"""Recognising keys: from memory, only as long as they hold, and with their last use told."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Row
from tests.apps.installation import Installation

from insula.apps import actions, authenticate, repository
from insula.apps.authenticate import FRESH_MS, TOUCH_MS, Authenticator, new_key
from insula.errors import Unavailable
from insula.storage.database import Database


class Counting:
    """A database that counts its reads, and can hold one back."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.reads = 0
        self.reading = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def read(self, query: Any) -> Any:
        self.reads += 1
        found = await self._inner.read(query)
        self.reading.set()
        await self.go.wait()
        return found

    async def write(self, unit: Any) -> Any:
        return await self._inner.write(unit)

    async def close(self) -> None:
        await self._inner.close()


@pytest.mark.parametrize(
    "key", ["", "ins_", "ins_" + "x" * 42, "ins_" + "x" * 44, "ins_" + "ü" * 43, "x" * 47]
)
async def test_what_is_no_key_is_not_looked_up(insula: Installation, key: str) -> None:
    database = Counting(insula.database)
    assert await Authenticator(database)(key) is None
    assert database.reads == 0


async def test_a_key_that_was_never_made(insula: Installation) -> None:
    await insula.create()
    assert await insula.authenticator(new_key()) is None


async def test_a_key_in_use_is_remembered_for_a_while(insula: Installation) -> None:
    app_id, key = await insula.create()
    database = Counting(insula.database)
    recognise = Authenticator(database, insula.clock)
    for _ in range(5):
        principal = await recognise(key)
        assert principal is not None
        assert principal.app_id == app_id
    assert database.reads == 1
    insula.clock.now += FRESH_MS
    assert await recognise(key) is not None
    assert database.reads == 2


async def test_expiry_is_exact(insula: Installation) -> None:
    app_id, _ = await insula.create()
    ends = insula.clock.now + 5_000
    _, key = await actions.create_key(insula.database, app_id, expires_at=ends)
    assert key is not None
    insula.clock.now = ends - 1
    assert await insula.authenticator(key) is not None
    insula.clock.now = ends
    assert await insula.authenticator(key) is None
    assert await insula.authenticator(key) is None


async def test_a_revocation_elsewhere_is_seen_in_time(insula: Installation) -> None:
    app_id, _ = await insula.create()
    row, key = await actions.create_key(insula.database, app_id)
    assert key is not None
    assert await insula.authenticator(key) is not None
    await actions.revoke_key(insula.database, app_id, row.id)
    insula.clock.now += FRESH_MS
    assert await insula.authenticator(key) is None


async def test_a_key_revoked_while_it_is_read_is_not_remembered(insula: Installation) -> None:
    app_id, _ = await insula.create()
    row, key = await actions.create_key(insula.database, app_id)
    assert key is not None
    database = Counting(insula.database)
    recognise = Authenticator(database, insula.clock)
    database.go.clear()
    looking = asyncio.create_task(recognise(key))
    await database.reading.wait()
    await actions.revoke_key(insula.database, app_id, row.id, recognise)
    database.go.set()
    await looking
    assert await recognise(key) is None


async def last_used(insula: Installation, app_id: str) -> int | None:
    rows, _ = await insula.database.read(
        lambda connection: repository.list_keys(connection, app_id, 1, 0, None)
    )
    row: Row[Any] = rows[0]
    return None if row.last_used_at is None else int(row.last_used_at)


async def test_last_use_is_written_once_a_minute(insula: Installation) -> None:
    app_id, key = await insula.create()
    start = insula.clock.now
    await insula.authenticator(key)
    assert await last_used(insula, app_id) is None
    await insula.authenticator.write_last_used()
    assert await last_used(insula, app_id) == start
    insula.clock.now = start + TOUCH_MS - 1
    await insula.authenticator(key)
    await insula.authenticator.write_last_used()
    assert await last_used(insula, app_id) == start
    insula.clock.now = start + TOUCH_MS
    await insula.authenticator(key)
    await insula.authenticator.write_last_used()
    assert await last_used(insula, app_id) == start + TOUCH_MS


async def test_memory_is_bounded(insula: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticate, "REMEMBERED", 2)
    app_id, _ = await insula.create()
    for _ in range(4):
        _, key = await actions.create_key(insula.database, app_id)
        assert key is not None
        assert await insula.authenticator(key) is not None
    assert len(insula.authenticator._known) == 2


async def test_a_last_use_that_cannot_be_written_now_is_written_later(
    insula: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that writes it belongs to the process's group: an error would bring all down."""
    app_id, key = await insula.create()
    await insula.authenticator(key)
    write = insula.database.write

    async def refuses(unit: Any) -> Any:
        raise Unavailable("Not now", retry_after=1)

    monkeypatch.setattr(insula.database, "write", refuses)
    await insula.authenticator.write_last_used()
    assert await last_used(insula, app_id) is None
    monkeypatch.setattr(insula.database, "write", write)
    await insula.authenticator.write_last_used()
    assert await last_used(insula, app_id) is not None
