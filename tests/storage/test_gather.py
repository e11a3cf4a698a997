import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from insula.errors import Unavailable
from insula.storage.database import Database
from insula.storage.dialect import driver
from insula.storage.gather import Gathering

DATABASES = ("sqlite", "postgres")


def store(connection: Connection, items: Sequence[str]) -> list[int]:
    for name in items:
        if name == "bad":
            raise LookupError(name)
        driver(connection).execute("INSERT INTO facts (name, value) VALUES (?, ?)", (name, b""))
    return [len(items)] * len(items)


def names(connection: Connection) -> list[str]:
    rows = driver(connection).execute("SELECT name FROM facts WHERE name <> 'schema_version'")
    return sorted(name for (name,) in rows)


async def test_what_gathers_is_stored_together(database: Database) -> None:
    gathering: Gathering[str, int] = Gathering(database, store)
    hold = threading.Event()
    first = database.submit(lambda connection: hold.wait(10) and None)
    tasks = [asyncio.create_task(gathering.write(f"{n:02}")) for n in range(30)]
    await asyncio.sleep(0)
    hold.set()
    await first
    assert await asyncio.gather(*tasks) == [30] * 30
    assert await database.read(names) == [f"{n:02}" for n in range(30)]


async def test_the_item_at_fault_is_the_only_one_that_hears_of_it(database: Database) -> None:
    gathering: Gathering[str, int] = Gathering(database, store)
    items = ["a", "b", "bad", "c", "bad", "d"]
    outcomes = await asyncio.gather(*map(gathering.write, items), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        LookupError if item == "bad" else int for item in items
    ]
    assert await database.read(names) == ["a", "b", "c", "d"]


async def test_more_than_one_unit_holds(database: Database) -> None:
    gathering: Gathering[str, int] = Gathering(database, store)
    items = [f"{n:04}" for n in range(1_300)]
    await asyncio.gather(*map(gathering.write, items))
    assert await database.read(names) == items


async def test_bad_units_of_others_in_the_group_do_not_store_twice(
    database: Database,
) -> None:
    def bad(connection: Connection) -> None:
        raise LookupError

    gathering: Gathering[str, int] = Gathering(database, store)
    hold = threading.Event()
    first = database.submit(lambda connection: hold.wait(10) and None)
    tasks = [asyncio.create_task(gathering.write(f"{n}")) for n in range(5)]
    await asyncio.sleep(0)
    other = database.submit(bad)
    hold.set()
    await asyncio.gather(first, other, *tasks, return_exceptions=True)
    assert isinstance(other.exception(), LookupError)
    assert await database.read(names) == ["0", "1", "2", "3", "4"]


async def test_where_nothing_can_be_stored_all_hear_of_it(database: Database) -> None:
    gathering: Gathering[str, int] = Gathering(database, store)
    await database.close()
    outcomes = await asyncio.gather(gathering.write("a"), return_exceptions=True)
    assert isinstance(outcomes[0], Unavailable)


async def test_a_group_that_never_began_is_told_to_those_who_gathered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(session: object, serial: bool) -> None:
        raise sqlite3.OperationalError("no such thing")

    gathering: Gathering[str, int] = Gathering(database, store)
    monkeypatch.setattr("insula.storage.group._begin", refuse)
    outcomes = await asyncio.gather(*map(gathering.write, "abc"), return_exceptions=True)
    assert {type(outcome).__name__ for outcome in outcomes} == {"OperationalError"}
    monkeypatch.undo()
    assert await gathering.write("a") == 1


class Asked:
    """A database whose groups end as the test says."""

    def __init__(self) -> None:
        self.units: list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = []

    def submit(self, unit: Callable[[Connection], Any], fenced: bool) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        self.units.append((unit, future))
        return future


async def test_one_that_is_stored_alone_takes_nothing_of_what_waits_for_another_unit() -> None:
    database, told = Asked(), list[tuple[str, Any, Any]]()
    gathering: Gathering[str, str] = Gathering(cast(Database, database), lambda _, items: items)
    ask = {name: partial(_note, told, name) for name in ("one", "two", "later")}
    gathering.submit("one", ask["one"])
    gathering.submit("two", ask["two"])
    together, failed = database.units.pop()
    together(cast(Connection, None))
    failed.set_exception(LookupError())
    await asyncio.sleep(0)
    gathering.submit("later", ask["later"])
    (_, one), (_, two), (unit, later) = database.units
    for away in (one, two):
        away.set_exception(Unavailable("away", retry_after=1))
    await asyncio.sleep(0)
    assert [name for name, _, _ in told] == ["one", "two"]
    later.set_result(unit(cast(Connection, None)))
    await asyncio.sleep(0)
    assert told[2:] == [("later", "later", None)]


def _note(told: list[tuple[str, Any, Any]], name: str, result: Any, error: Any) -> None:
    told.append((name, result, error))
