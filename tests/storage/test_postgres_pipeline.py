"""What the writer sends, counted at the server's door; and what becomes of what fails there."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, select

from insula.storage.counters import bump
from insula.storage.dialect import driver
from insula.storage.postgres import PostgresDatabase, open_postgres
from insula.storage.postgres_pipeline import Command, Pipeline, pipeline_of
from insula.storage.rows import delete_rows, insert_rows, update_rows
from insula.storage.tables import facts

Sent = list[list[str]]
VALUES = ("name", "value")


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    opened = await open_postgres(postgres_url)
    yield opened
    await opened.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The first words of what goes out, by round trip."""
    trips: Sent = []
    exchange = Pipeline._exchange

    def listen(self: Pipeline, commands: list[Command]) -> Any:
        trips.append([command.text.decode().partition(" ")[0] for command in commands])
        return exchange(self, commands)

    monkeypatch.setattr(Pipeline, "_exchange", listen)
    return trips


def put(*names: str) -> Callable[[Connection], None]:
    def unit(connection: Connection) -> None:
        insert_rows(connection, facts, VALUES, [(name, b"x") for name in names])

    return unit


def names(connection: Connection) -> set[str]:
    return set(connection.scalars(select(facts.c.name).where(facts.c.name != "schema_version")))


MARK = ["INSERT"]
"""What each transaction leaves of itself."""


async def fenced(database: PostgresDatabase, unit: Callable[[Connection], Any]) -> Any:
    return await database.submit(unit, fenced=True)


async def test_what_has_no_answer_goes_out_together(database: PostgresDatabase, sent: Sent) -> None:
    def unit(connection: Connection) -> None:
        put("a", "b")(connection)
        delete_rows(connection, facts, "name", ["a"])
        bump(connection, "a", "w", "RUNNING", "ENDPOINT")

    await fenced(database, unit)
    assert sent == [["BEGIN", *MARK, "INSERT", "DELETE", "INSERT", "COMMIT"]]
    assert await database.read(names) == {"b"}


async def test_an_answer_takes_one_trip_and_the_rest_goes_with_the_commit(
    database: PostgresDatabase, sent: Sent
) -> None:
    def unit(connection: Connection) -> int:
        put("a")(connection)
        found = update_rows(
            connection, facts, ("name",), ("value",), [("a", b"y"), ("none", b"y")], "true"
        )
        put("b")(connection)
        return found

    assert await fenced(database, unit) == 1
    assert sent == [["BEGIN", *MARK, "INSERT", "UPDATE"], ["INSERT", "COMMIT"]]
    assert await database.read(names) == {"a", "b"}


async def test_a_statement_of_the_driver_sees_what_was_deferred(database: PostgresDatabase) -> None:
    def unit(connection: Connection) -> tuple[set[str], int]:
        put("a")(connection)
        counted = driver(connection).execute("SELECT count(*) FROM facts WHERE name = ?", ("a",))
        return names(connection), counted.fetchone()[0]

    assert await fenced(database, unit) == ({"a"}, 1)


async def test_a_group_that_does_nothing_sends_nothing(
    database: PostgresDatabase, sent: Sent
) -> None:
    await fenced(database, lambda _: None)
    assert sent == []


@pytest.mark.parametrize("together", [True, False])
async def test_what_fails_at_the_commit_is_told_to_whose_it_is(
    database: PostgresDatabase, together: bool
) -> None:
    await database.write(put("there"))
    units = [put("a"), put("there"), put("b")] if together else [put("there")]
    outcomes = await asyncio.gather(
        *[database.submit(unit, fenced=True) for unit in units], return_exceptions=True
    )
    failed = [error for error in outcomes if isinstance(error, psycopg.errors.UniqueViolation)]
    assert len(failed) == 1
    stored = {"there", "a", "b"} if together else {"there"}
    assert await database.read(names) == stored


async def test_a_unit_that_fails_leaves_nothing_of_what_it_deferred(
    database: PostgresDatabase, sent: Sent
) -> None:
    def fail(connection: Connection) -> None:
        put("bad")(connection)
        raise LookupError

    units = [put("a"), fail, put("b")]
    await asyncio.gather(*map(database.submit, units), return_exceptions=True)
    assert await database.read(names) == {"a", "b"}
    assert sum("INSERT" in trip for trip in sent) <= 4


async def test_statements_are_prepared_once_and_stay_so_after_a_failure(
    database: PostgresDatabase,
) -> None:
    def prepared(connection: Connection) -> list[str]:
        rows = driver(connection).execute(
            "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'INSERT INTO facts%'"
        )
        return [name for (name,) in rows if re.fullmatch(r"insula_\d+", name)]

    await database.write(put("a"))
    once = await database.write(prepared)
    assert len(once) == 1
    with pytest.raises(psycopg.errors.UniqueViolation):
        await database.write(put("a"))
    await database.write(put("b"))
    assert await database.write(prepared) == once


async def test_beside_nothing_is_deferred(database: PostgresDatabase) -> None:
    await database.autocommit(put("a"))
    assert await database.read(names) == {"a"}


async def test_what_waits_does_not_grow_without_end(database: PostgresDatabase, sent: Sent) -> None:
    def unit(connection: Connection) -> None:
        for number in range(150):
            put(f"{number}")(connection)
        assert len(pipeline_of(connection)._deferred) < 64

    await fenced(database, unit)
    assert [len(trip) for trip in sent] == [64, 64, 25]
    assert len(await database.read(names)) == 150


async def test_a_large_answer_and_a_large_question_pass_each_other(
    database: PostgresDatabase,
) -> None:
    large = b"x" * 20_000_000

    def unit(connection: Connection) -> int:
        insert_rows(connection, facts, VALUES, [("large", large)])
        asked = Command(b"SELECT value, $1 FROM facts WHERE name = 'large'", [large], (17,))
        result = pipeline_of(connection).ask(asked)
        return sum(len(result.get_value(0, column) or b"") for column in (0, 1))

    assert await fenced(database, unit) == 2 * len(large)
