"""What every database does, whichever it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from insula.errors import BadInput, Unavailable
from insula.storage.database import Database
from insula.storage.postgres import open_postgres
from insula.storage.sqlite import open_sqlite
from insula.storage.tables import facts

Open = Callable[[], Awaitable[Database]]


@pytest.fixture(params=["sqlite", "postgres"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same database each time."""
    if request.param == "sqlite":
        return lambda: open_sqlite(tmp_path / "insula.db")
    url = request.getfixturevalue("postgres_url")
    return lambda: open_postgres(url)


@pytest.fixture
async def database(open_again: Open) -> AsyncIterator[Database]:
    opened = await open_again()
    yield opened
    await opened.close()


def put(name: str):
    def unit(connection: Connection) -> str:
        connection.execute(insert(facts).values(name=name, value=b"x"))
        return name

    return unit


def fail(connection: Connection) -> None:
    put("half done")(connection)
    raise LookupError("bad unit")


def names(connection: Connection) -> list[str]:
    query = select(facts.c.name).where(facts.c.name != "schema_version").order_by(facts.c.name)
    return list(connection.scalars(query))


async def test_a_unit_returns_its_value_and_is_read_back(database: Database) -> None:
    assert await database.write(put("a")) == "a"
    assert await database.read(names) == ["a"]


async def test_a_unit_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(LookupError):
        await database.write(fail)
    assert await database.read(names) == []
    await database.write(put("next"))
    assert await database.read(names) == ["next"]


async def test_an_error_of_the_database_is_raised_where_it_was_written(database: Database) -> None:
    await database.write(put("a"))
    with pytest.raises(IntegrityError):
        await database.write(put("a"))


async def test_one_bad_unit_among_many_is_the_only_one_that_hears_of_it(
    database: Database,
) -> None:
    futures = [database.submit(fail if n % 7 == 3 else put(f"{n:02}")) for n in range(50)]
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, LookupError)] == [
        n for n in range(50) if n % 7 == 3
    ]
    assert await database.read(names) == [f"{n:02}" for n in range(50) if n % 7 != 3]


async def test_units_run_in_the_order_of_their_submission(database: Database) -> None:
    seen: list[int] = []

    def unit(number: int):
        return lambda connection: seen.append(number)

    await asyncio.gather(*[database.submit(unit(number)) for number in range(200)])
    assert seen == list(range(200))


async def test_a_cancelled_writer_does_not_withdraw_its_unit(database: Database) -> None:
    task = asyncio.create_task(database.write(put("a")))
    await asyncio.sleep(0)  # let it submit
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.write(put("b"))
    assert await database.read(names) == ["a", "b"]


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    loop = asyncio.get_running_loop()

    def query(connection: Connection) -> tuple[list[str], list[str]]:
        before = names(connection)
        asyncio.run_coroutine_threadsafe(database.write(put("between")), loop).result(10)
        return before, names(connection)

    assert await database.read(query) == ([], [])
    assert await database.read(names) == ["between"]


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match="read"):
        await database.read(put("a"))
    assert await database.read(names) == []


async def test_an_error_of_a_query_is_raised(database: Database) -> None:
    def query(connection: Connection) -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        await database.read(query)


async def test_close_commits_what_was_submitted(open_again: Open) -> None:
    database = await open_again()
    futures = [database.submit(put(f"{n:03}")) for n in range(700)]
    await database.close()
    assert await asyncio.gather(*futures) == [f"{n:03}" for n in range(700)]
    again = await open_again()
    assert len(await again.read(names)) == 700
    await again.close()


async def test_a_closed_database_says_so(database: Database) -> None:
    await database.close()
    with pytest.raises(Unavailable):
        await database.write(put("a"))
    with pytest.raises(Unavailable):
        await database.read(names)
    await database.close()


async def test_reclaim_keeps_what_is_there(database: Database) -> None:
    await asyncio.gather(*[database.submit(put(f"{n:03}")) for n in range(300)])
    await database.write(
        lambda connection: connection.execute(delete(facts).where(facts.c.name >= "001")).rowcount
    )
    await database.reclaim()
    assert await database.read(names) == ["000"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(outcomes=st.lists(st.booleans(), max_size=30))
async def test_exactly_the_units_that_succeed_are_stored(
    database: Database, outcomes: list[bool]
) -> None:
    await database.write(lambda connection: connection.execute(delete(facts)).rowcount)
    futures = [database.submit(put(f"{n:02}") if ok else fail) for n, ok in enumerate(outcomes)]
    await asyncio.gather(*futures, return_exceptions=True)
    assert await database.read(names) == [f"{n:02}" for n, ok in enumerate(outcomes) if ok]
    assert [future.exception() is None for future in futures] == outcomes


async def test_a_text_that_no_column_holds_is_the_callers_mistake(database: Database) -> None:
    """SQLite takes it; PostgreSQL does not, and neither looks for it."""

    def look(connection: Connection) -> list[str]:
        return list(connection.scalars(select(facts.c.name).where(facts.c.name == "a\0b")))

    asked = database.write(put("a\0b")), database.read(look)
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert not isinstance(answer, BaseException) or isinstance(answer, BadInput), answer
    await database.write(put("good"))
    assert "good" in await database.read(names)
