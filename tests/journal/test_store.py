import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from tests.journal.rows import TOKEN, create, event_rows, run_row, steal

from insula.journal import store
from insula.journal.store import Batch, Ending, SomeFenced, compress, expand
from insula.storage.database import Database
from insula.storage.dialect import driver, is_postgres
from insula.storage.postgres_pipeline import pipeline_of
from insula.storage.rows import update_arrays, update_text
from insula.storage.tables import runs

DATABASES = ("sqlite", "postgres")


def batch(run_id: str, previous: int = 0) -> Batch:
    return Batch(run_id, previous, previous + 1, 5, b"[]")


def ending(run_id: str, **columns: object) -> Ending:
    row = {"status": "COMPLETED", "ended_at": 5, **columns}
    return Ending(batch(run_id), "COMPLETED", row, b"[]", False, None, None)


async def test_more_runs_than_fit_one_statement(database: Database) -> None:
    names = [await create(database, f"run_{number:03}") for number in range(150)]
    batches = [batch(name) for name in names]
    assert await database.write(lambda c: store.append(c, TOKEN, batches)) == [True] * 150
    assert (await run_row(database, names[149])).seq == 1
    assert await event_rows(database, names[149]) == [(1, b"[]")]


async def test_one_alone_is_told_whether_it_is_fenced(database: Database) -> None:
    await create(database, "run_a")
    for previous, stored in ((1, False), (0, True), (0, False), (1, True)):
        some = [batch("run_a", previous)]
        assert await database.write(lambda c, some=some: store.append(c, TOKEN, some)) == [stored]
    assert [seq for seq, _ in await event_rows(database, "run_a")] == [1, 2]


async def test_of_several_nothing_is_stored_where_some_are_fenced(database: Database) -> None:
    for name in "ab":
        await create(database, f"run_{name}")
    await steal(database, "run_b")
    batches = [batch("run_a"), batch("run_b")]
    with pytest.raises(SomeFenced):
        await database.write(lambda connection: store.append(connection, TOKEN, batches))
    assert await event_rows(database, "run_a") == []


async def test_ends_with_different_columns_share_a_unit(database: Database) -> None:
    for name in "abc":
        await create(database, f"run_{name}")
    endings = [ending("run_a", credits=1.5), ending("run_b"), ending("run_c", credits=2.5)]
    assert await database.write(lambda c: store.end(c, TOKEN, endings)) == [True] * 3
    assert [(await run_row(database, f"run_{name}")).credits for name in "abc"] == [1.5, 0, 2.5]


async def test_an_ended_run_is_fenced(database: Database) -> None:
    await create(database, "run_a", ended_at=3, status="CANCELLED")
    assert await database.write(lambda c: store.append(c, TOKEN, [batch("run_a")])) == [False]
    assert await database.write(lambda c: store.end(c, TOKEN, [ending("run_a")])) == [False]
    assert (await run_row(database, "run_a")).status == "CANCELLED"


async def test_a_column_that_does_not_exist_is_refused(database: Database) -> None:
    await create(database, "run_a")
    wrong = [ending("run_a", **{"status = 'FAILED' --": 1})]
    with pytest.raises(ValueError, match="no column"):
        await database.write(lambda connection: store.end(connection, TOKEN, wrong))


async def test_the_fence_is_found_by_index(database: Database) -> None:
    shape = (runs, ("id", "seq"), ("seq", "updated_at"))

    def plan(connection: Connection) -> str:
        raw = driver(connection)
        if is_postgres(connection):
            command = update_arrays(*shape, store._OURS).of([("run_a", 0, 1, 5)], [TOKEN])
            asked = pipeline_of(connection).ask(command._replace(text=b"EXPLAIN " + command.text))
            lines = (asked.get_value(line, 0) or b"" for line in range(asked.ntuples))
            return b"\n".join(lines).decode()
        text = "EXPLAIN QUERY PLAN " + update_text(*shape, 8, store._OURS)
        return "\n".join(row[3] for row in raw.execute(text, [1] * 33))

    found = await database.write(plan)
    assert "SEARCH runs USING INDEX" in found or "Index Scan using runs_" in found
    assert "SCAN runs" not in found
    assert "Seq Scan on runs" not in found


@given(st.binary(max_size=3_000))
def test_expanding_undoes_compressing(content: bytes) -> None:
    journal = b"[" + content + b"]"
    assert expand(compress(journal)) == journal
