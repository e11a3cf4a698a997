import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from insula.errors import Unavailable
from insula.storage.sqlite import SqliteDatabase, open_sqlite
from insula.storage.sqlite_connection import driver


def put(name: str, value: bytes = b"x") -> Callable[[Connection], None]:
    def unit(connection: Connection) -> None:
        driver(connection).execute("INSERT INTO facts (name, value) VALUES (?, ?)", (name, value))

    return unit


def pragma(name: str) -> Callable[[Connection], int | str]:
    def query(connection: Connection) -> int | str:
        value: int | str = driver(connection).execute(f"PRAGMA {name}").fetchone()[0]
        return value

    return query


def names(connection: Connection) -> list[str]:
    rows = driver(connection).execute("SELECT name FROM facts WHERE name <> 'schema_version'")
    return sorted(name for (name,) in rows)


async def test_the_file_is_set_up_for_durability_and_erasure(database: SqliteDatabase) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
        "secure_delete": 1,
    }
    assert {name: await database.write(pragma(name)) for name in expected} == expected
    assert await database.read(pragma("query_only")) == 1


async def test_normal_is_an_option(tmp_path: Path) -> None:
    database = await open_sqlite(tmp_path / "insula.db", synchronous="NORMAL")
    assert await database.write(pragma("synchronous")) == 1
    await database.close()


async def test_the_file_belongs_to_its_owner_alone(database: SqliteDatabase) -> None:
    await database.write(put("a"))
    for name in ("insula.db", "insula.db-wal", "insula.db-shm"):
        mode = stat.S_IMODE((database.path.parent / name).stat().st_mode)
        assert mode == 0o600, name


async def test_a_full_disk_is_an_answer_and_the_writer_lives(database: SqliteDatabase) -> None:
    pages = int(await database.read(pragma("page_count")))
    await database.write(pragma(f"max_page_count = {pages + 4}"))
    big = database.submit(put("big", b"x" * 200_000))
    with pytest.raises(Unavailable, match="disk is full") as caught:
        await big
    assert caught.value.retry_after == 1
    await database.write(pragma("max_page_count = 1000000"))
    await database.write(put("small"))
    assert await database.read(names) == ["small"]


async def test_a_unit_that_fills_the_disk_takes_nobody_with_it(database: SqliteDatabase) -> None:
    pages = int(await database.read(pragma("page_count")))
    await database.write(pragma(f"max_page_count = {pages + 4}"))
    units = [put("a"), put("big", b"x" * 200_000), put("b"), put("huge", b"x" * 300_000), put("c")]
    outcomes = await asyncio.gather(*map(database.submit, units), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        Unavailable,
        type(None),
        Unavailable,
        type(None),
    ]
    assert await database.read(names) == ["a", "b", "c"]


async def test_a_full_disk_for_all_is_told_to_all(database: SqliteDatabase) -> None:
    pages = int(await database.read(pragma("page_count")))
    await database.write(pragma(f"max_page_count = {pages}"))
    units = [put(f"{n}", b"x" * 50_000) for n in range(20)]
    outcomes = await asyncio.gather(*map(database.submit, units), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


async def test_a_file_held_by_another_process_is_unavailable(database: SqliteDatabase) -> None:
    await database.write(pragma("busy_timeout = 1"))
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(
        *[database.submit(put(name)) for name in "abc"], return_exceptions=True
    )
    other.execute("ROLLBACK")
    other.close()
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    await database.write(put("a"))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration, MemoryError])
async def test_nothing_that_a_unit_raises_ends_the_writer(
    database: SqliteDatabase, error: type[BaseException]
) -> None:
    def unit(connection: Connection) -> None:
        raise error

    outcome = await asyncio.wait([database.submit(unit)])
    raised = next(iter(outcome[0])).exception()
    assert isinstance(raised, RuntimeError if error is StopIteration else error)
    await database.write(put("a"))


async def test_a_unit_that_ends_the_transaction_is_refused(database: SqliteDatabase) -> None:
    with pytest.raises(RuntimeError, match="units never commit"):
        await database.write(lambda connection: driver(connection).execute("COMMIT") and None)
    await database.write(put("a"))


async def test_units_through_sqlalchemy_and_nested_ones(database: SqliteDatabase) -> None:
    def unit(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO facts VALUES ('kept', x'00')")
        nested = connection.begin_nested()
        connection.exec_driver_sql("INSERT INTO facts VALUES ('undone', x'00')")
        nested.rollback()

    await database.write(unit)
    assert await database.read(names) == ["kept"]


async def test_too_many_waiting_units_are_refused(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.storage.writer.UNITS_WAITING_MAX", 3)
    taken, hold = threading.Event(), threading.Event()

    def block(connection: Connection) -> None:
        taken.set()
        hold.wait(10)

    first = database.submit(block)
    await asyncio.to_thread(taken.wait, 10)
    accepted = [database.submit(put(f"{number}")) for number in range(3)]
    with pytest.raises(Unavailable) as caught:
        database.submit(put("one too many"))
    assert caught.value.retry_after == 1
    hold.set()
    await asyncio.gather(first, *accepted)
    assert await database.read(names) == ["0", "1", "2"]


async def test_nothing_is_told_before_the_commit(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the commit is held up another connection sees nothing, and no future is done."""
    reached, proceed = threading.Event(), threading.Event()

    def flush(connection: Connection) -> None:
        reached.set()
        proceed.wait(10)

    monkeypatch.setattr("insula.storage.counters.flush", flush)
    futures = [database.submit(put(name)) for name in "abc"]
    await asyncio.to_thread(reached.wait, 10)
    assert await database.read(names) == []
    assert not any(future.done() for future in futures)
    proceed.set()
    await asyncio.gather(*futures)
    assert await database.read(names) == ["a", "b", "c"]


async def test_what_gathers_during_a_commit_is_one_group(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    hold = threading.Event()

    def flush(connection: Connection) -> None:
        groups.append(1)

    monkeypatch.setattr("insula.storage.counters.flush", flush)
    first = database.submit(lambda connection: hold.wait(10) and None)
    rest = [database.submit(put(f"{number}")) for number in range(100)]
    hold.set()
    await asyncio.gather(first, *rest)
    assert len(groups) <= 2


async def test_a_slow_query_is_interrupted_at_its_deadline(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database._readers, "_deadline", 0.05)
    with pytest.raises(Unavailable, match="longer than"):
        await database.read(endless)
    monkeypatch.setattr(database._readers, "_deadline", 10)
    assert await database.read(names) == []


async def test_a_cancelled_query_is_interrupted(database: SqliteDatabase) -> None:
    started = threading.Event()

    def query(connection: Connection) -> None:
        started.set()
        endless(connection)

    tasks = [asyncio.create_task(database.read(query)) for _ in range(8)]
    await asyncio.to_thread(started.wait, 10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await database.read(names) == []


def endless(connection: Connection) -> None:
    driver(connection).execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    ).fetchone()


async def test_erased_data_leaves_the_disk_and_the_file_shrinks(database: SqliteDatabase) -> None:
    secret = b"a-thing-nobody-should-find" * 8_000
    await asyncio.gather(*[database.submit(put(f"{n}", secret)) for n in range(10)])
    assert any(secret[:100] in content for content in contents(database.path))
    await database.write(
        lambda connection: driver(connection).execute("DELETE FROM facts") and None
    )
    await database.reclaim()
    assert not any(secret[:100] in content for content in contents(database.path))
    assert database.path.stat().st_size < 1_000_000
    assert (database.path.parent / "insula.db-wal").stat().st_size == 0


async def test_a_file_that_another_program_made_keeps_its_size_and_nobody_waits_for_it(
    tmp_path: Path,
) -> None:
    database = await open_sqlite(tmp_path / "old.db")
    await asyncio.gather(*[database.submit(put(f"{n}", b"x" * 100_000)) for n in range(10)])
    await database.close()
    old, new = sqlite3.connect(tmp_path / "old.db"), sqlite3.connect(tmp_path / "new.db")
    new.executescript("\n".join(old.iterdump()))  # as one that was salvaged
    for connection in (old, new):
        connection.close()
    database = await open_sqlite(tmp_path / "new.db")
    await database.write(
        lambda connection: driver(connection).execute("DELETE FROM facts WHERE name < '5'") and None
    )
    async with asyncio.timeout(30):
        await database.reclaim()
    await database.close()


def contents(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.parent.iterdir() if file.name != "insula.db-shm"]


async def test_nothing_is_left_open(tmp_path: Path) -> None:
    await asyncio.to_thread(lambda: None)  # the loop's own threads are there before the count
    files, threads = open_files(), set(threading.enumerate())
    for number in range(3):
        database = await open_sqlite(tmp_path / "insula.db")
        await database.write(put(f"{number}"))
        await asyncio.gather(*[database.read(names) for _ in range(20)])
        await database.close()
    assert open_files() == files
    assert {thread.name for thread in set(threading.enumerate()) - threads} <= {"asyncio_1"}


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def read_names(path: Path) -> list[str]:
    database = await open_sqlite(path)
    found = await database.read(names)
    await database.close()
    return found


WRITER = """
import asyncio, sys
from pathlib import Path
from insula.storage.sqlite import open_sqlite
from insula.storage.sqlite_connection import driver

async def main():
    database = await open_sqlite(Path(sys.argv[1]))
    async def write(writer):
        for number in range(100000):
            def unit(connection):
                sql = "INSERT INTO facts (name, value) VALUES (?, ?)"
                driver(connection).execute(sql, (f"{writer}-{number}", b"x" * 300))
            await database.write(unit)
            print(writer, number, flush=True)
    await asyncio.gather(*[write(writer) for writer in range(8)])

asyncio.run(main())
"""


def test_a_killed_process_leaves_all_that_was_told_and_a_prefix_of_the_rest(
    tmp_path: Path,
) -> None:
    path = tmp_path / "insula.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().split() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        told += [line.split() for line in process.stdout if line.endswith("\n")]
    stored: dict[int, set[int]] = {writer: set() for writer in range(8)}
    for name in asyncio.run(read_names(path)):
        writer, number = map(int, name.split("-"))
        stored[writer].add(number)
    for writer, number in told:
        assert int(number) in stored[int(writer)]
    for numbers in stored.values():
        assert numbers == set(range(len(numbers)))
