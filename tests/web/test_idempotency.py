"""Idempotency keys: what a repeat finds, what another body gets, and when a record goes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, update
from starlette.requests import Request

from insula.errors import BadInput, Conflict, KeyReused
from insula.kit.clock import now_ms
from insula.storage.database import Database
from insula.storage.opening import open_database
from insula.storage.tables import idempotency as records
from insula.web.auth import Principal
from insula.web.idempotency import LIFE_MS, InFlight, claim, read_key, sweep

DATABASES = ("sqlite", "postgres")

MINE = Principal("app_1", "key_1")
THEIRS = Principal("app_2", "key_2")


def request(key: str | None, app_id: str = "c", path: str = "/things") -> Request:
    headers = [] if key is None else [(b"idempotency-key", key.encode("latin-1"))]
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": f"/apps/{app_id}{path}",
            "path_params": {"app_id": app_id},
            "headers": headers,
        }
    )


@pytest.fixture
async def database(tmp_path: Path, database_url: str | None) -> AsyncIterator[Database]:
    opened = await open_database(database_url, tmp_path, "FULL")
    yield opened
    await opened.close()


async def claimed(
    database: Database, who: Principal, key: str, body: bytes, made: str, app_id: str = "c"
) -> str | None:
    read = read_key(request(key, app_id), body)
    assert read is not None
    return await database.write(lambda connection: claim(connection, who, read, made))


def test_no_key_is_none() -> None:
    assert read_key(request(None), b"") is None


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\x00b", "a\x7f"])
def test_a_key_that_cannot_be_used(key: str) -> None:
    with pytest.raises(BadInput) as raised:
        read_key(request(key), b"")
    assert raised.value.errors[0].path == ("idempotency-key",)


async def test_a_repeat_finds_what_was_made(database: Database) -> None:
    assert await claimed(database, MINE, "k", b"{}", "run_1") is None
    assert await claimed(database, MINE, "k", b"{}", "run_2") == "run_1"
    assert await claimed(database, MINE, "k", b"{}", "run_3", app_id="app_1") == "run_1"


async def test_apps_and_keys_are_apart(database: Database) -> None:
    assert await claimed(database, MINE, "k", b"{}", "run_1") is None
    assert await claimed(database, THEIRS, "k", b"{}", "run_2") is None
    assert await claimed(database, MINE, "l", b"{}", "run_3") is None


async def test_another_body_is_refused(database: Database) -> None:
    assert await claimed(database, MINE, "k", b"{}", "run_1") is None
    with pytest.raises(KeyReused):
        await claimed(database, MINE, "k", b"{ }", "run_2")


async def test_a_record_ends_after_a_day(database: Database) -> None:
    assert await claimed(database, MINE, "old", b"{}", "run_1") is None
    assert await claimed(database, MINE, "k", b"{}", "run_2") is None
    old = update(records).values(created_at=now_ms() - LIFE_MS)
    await database.write(lambda connection: connection.execute(old).rowcount)
    assert await claimed(database, MINE, "k", b"[]", "run_3") is None
    assert await claimed(database, MINE, "k", b"[]", "run_4") == "run_3"
    assert await database.write(sweep) == 1
    assert await database.write(sweep) == 0

    def left(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(records)).scalar_one()

    assert await database.read(left) == 1


def test_in_flight_is_a_conflict() -> None:
    flights = InFlight()
    key = read_key(request("k"), b"")
    with flights.hold(MINE, key):
        with flights.hold(THEIRS, key), flights.hold(MINE, None), flights.hold(MINE, None):
            pass
        with pytest.raises(Conflict), flights.hold(MINE, key):
            pass
    with flights.hold(MINE, key):
        pass
