"""Sealing everything anew while others seal, and where the keys cannot be stored."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection
from tests.runs.platform import ADMIN, Platform, open_platform

from insula.adapters import keyring, sealed_rows
from insula.adapters.keyring import KeyRing
from insula.storage.database import Database
from insula.variables import actions
from insula.variables.schemas import CreateAppVariableSchema
from insula.web.auth import Principal

DATABASES = ("sqlite", "postgres")
T = TypeVar("T")


class Telling:
    """A database that tells when a unit is given to it."""

    def __init__(self, database: Database, told: threading.Event) -> None:
        self._database = database
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, unit: Callable[[Connection], T]) -> T:
        self._told.set()
        return await self._database.write(unit)


async def test_what_was_sealed_but_not_committed_is_sealed_anew_as_well(
    platform: Platform, tmp_path: Path
) -> None:
    """Its group is held open until the rotation hands in a unit, or is through without one."""
    database, ring = platform.services.database, KeyRing([], tmp_path / "keys")
    sealed, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def create(connection: Connection) -> None:
        wanted = CreateAppVariableSchema(key="K", value="planted-1", secret=True)
        principal = Principal(platform.acme.id, "key")
        actions.create(connection, ring, principal, wanted, None)
        loop.call_soon_threadsafe(sealed.set)
        go_on.wait()

    creating = database.submit(create)
    await sealed.wait()
    telling: Any = Telling(database, go_on)
    try:
        assert await sealed_rows.rotate(telling, ring) == 1
    finally:
        go_on.set()
        await creating
    await sealed_rows.check_keys(database, ring)
    await sealed_rows.check_keys(database, KeyRing([], tmp_path / "keys"))


async def test_two_rotations_at_once_let_go_of_no_key_that_is_needed(
    platform: Platform, tmp_path: Path
) -> None:
    database, ring = platform.services.database, KeyRing([], tmp_path / "keys")
    wanted = [
        CreateAppVariableSchema(key=f"K{number}", value=f"planted-{number}", secret=True)
        for number in range(450)
    ]
    unit = partial(actions.change_many, ring=ring, app_id=platform.acme.id, wanted=wanted)
    await database.write(unit)
    await asyncio.gather(*(sealed_rows.rotate(database, ring) for _ in range(3)))
    assert await database.read(sealed_rows.needed) == {ring.current} == ring.ids
    assert KeyRing([], tmp_path / "keys").ids == ring.ids


@pytest.mark.parametrize("kept", [0, 1], ids=["the new key", "without the old one"])
async def test_where_the_keys_cannot_be_stored_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """The first write is of the new key beside the old one, the second takes the old one away."""
    writes = iter(range(2))
    write = keyring._write

    def full(file: Path, keys: list[bytes]) -> None:
        if next(writes) == kept:
            raise OSError(28, "No space left on device")
        write(file, keys)

    rotate = {"url": "/secrets/rotate", "headers": {"authorization": f"Bearer {ADMIN}"}}
    secret = {"value": "planted-1", "secret": True}
    async with open_platform(tmp_path) as platform:
        await platform.acme.ok("POST", "/variables", {"key": "A", **secret})
        with monkeypatch.context() as patched:
            patched.setattr(keyring, "_write", full)
            refused = await platform.client.post(**rotate)
        assert refused.status_code == 503
        assert "No space left on device" in refused.json()["message"]
        await platform.acme.ok("POST", "/variables", {"key": "B", **secret})
    async with open_platform(tmp_path) as platform:
        assert (await platform.client.post(**rotate)).json()["rotated"] == 2
        assert len((tmp_path / keyring.FILE).read_text().split()) == 1
