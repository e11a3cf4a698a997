import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import count
from unittest.mock import Mock

import psycopg
import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxied

from insula.errors import Unavailable
from insula.kit import clock
from insula.storage import counters, postgres, postgres_session
from insula.storage.dialect import driver, now_ms
from insula.storage.postgres import PostgresDatabase, look, open_postgres
from insula.storage.postgres_address import DatabaseUnusable
from insula.storage.postgres_session import SERIAL_LOCK, Line, PostgresSession
from insula.storage.tables import commits, facts, nodes


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[Proxy]:
    async with proxied(postgres_server.port) as opened:
        yield opened


@pytest.fixture
async def database(
    proxy: Proxy, postgres_server: PostgresServer, postgres_url: str
) -> AsyncIterator[PostgresDatabase]:
    url = postgres_url.replace(str(postgres_server.port), str(proxy.port))
    opened = await open_postgres(url)
    yield opened
    await opened.close()


def put(name: str) -> Callable[[Connection], str]:
    def unit(connection: Connection) -> str:
        connection.execute(insert(facts).values(name=name, value=b"x"))
        return name

    return unit


def names(connection: Connection) -> list[str]:
    rows = driver(connection).execute("SELECT name FROM facts WHERE name <> 'schema_version'")
    return sorted(name for (name,) in rows)


async def eventually(database: PostgresDatabase, unit: Callable[[Connection], str]) -> str:
    """Write as whoever tries again does."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await database.write(unit)
            except Unavailable:
                await asyncio.sleep(0.02)  # less than its own pause before it connects again


async def until(met: Callable[[], bool]) -> None:
    """Wait for what other programs do."""
    async with asyncio.timeout(10):
        while not met():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


async def test_a_connection_that_broke_at_rest_is_made_anew(
    database: PostgresDatabase, proxy: Proxy
) -> None:
    await database.write(put("a"))
    assert await database.read(names) == ["a"]
    proxy.cut()
    assert await database.write(put("b")) == "b"
    assert await database.read(names) == ["a", "b"]
    proxy.cut()
    assert await database.autocommit(names) == ["a", "b"]


async def test_a_connection_that_breaks_within_a_group_costs_nothing(
    database: PostgresDatabase, proxy: Proxy
) -> None:
    proxy.cut_at(b"INSERT INTO facts", "after")
    outcomes = await asyncio.gather(*[database.write(put(f"{n}")) for n in range(5)])
    assert proxy.tripped.is_set()
    assert outcomes == list("01234")
    assert await database.read(names) == list("01234")


async def test_a_connection_that_breaks_within_a_query_is_told_or_made_anew(
    database: PostgresDatabase, proxy: Proxy
) -> None:
    loop, seen = asyncio.get_running_loop(), list[int]()

    async def cut() -> None:
        proxy.cut()

    def query(connection: Connection) -> int:
        seen.append(len(connection.scalars(select(facts.c.name)).all()))
        if len(seen) < 3:
            asyncio.run_coroutine_threadsafe(cut(), loop).result(10)
        return len(connection.scalars(select(facts.c.name)).all())

    with pytest.raises(Unavailable):  # it was new
        await database.read(query)
    assert await database.read(names) == []
    assert await database.read(query) == seen[-1]  # it had rested
    assert len(seen) == 3


@pytest.mark.parametrize("where", ["before", "after"])
async def test_what_became_of_a_commit_is_found_out(
    database: PostgresDatabase, proxy: Proxy, where: str
) -> None:
    """Cut before the commit reaches the server it is run again, cut after it is not; both times
    whoever wrote hears that it is stored, and it is stored once."""
    for number in range(3):
        proxy.cut_at(b"COMMIT", where)  # type: ignore[arg-type]  # one of the two
        async with asyncio.timeout(20):
            assert await database.write(put(f"{number}")) == f"{number}"
        assert proxy.tripped.is_set()
    assert await database.read(names) == ["0", "1", "2"]


def was_committed(server: PostgresServer, number: int) -> bool:
    """Ask the server of a transaction by its number, which it may not have come to yet."""
    ((come,),) = server.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    if int(str(come)) <= number:
        return False
    return server.execute(f"SELECT pg_xact_status('{number}'::xid8)") == [("committed",)]


async def test_a_commit_that_a_crash_undid_is_no_other_s(
    database: PostgresDatabase, proxy: Proxy, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """The server gives the number of a transaction that a crash has undone to another one."""
    loop, numbers = asyncio.get_running_loop(), list[int]()
    await database.write(put("before"))

    def crash_within(connection: Connection) -> str:
        name = put("a")(connection)
        row = driver(connection).execute("SELECT pg_current_xact_id()::text").fetchone()
        numbers.append(int(row[0]))
        if len(numbers) == 1:
            asyncio.run_coroutine_threadsafe(proxy.refuse(), loop).result(10)
            postgres_server.kill()
        return name

    storing = database.submit(crash_within)
    await until(lambda: bool(database._writer._unsettled))
    postgres_server.start()  # in this thread: it ends with the one that started it
    while not was_committed(postgres_server, numbers[0]):
        postgres_server.execute("SELECT pg_current_xact_id()::text")
    await proxy.listen()
    async with asyncio.timeout(20):
        assert await storing == "a"
    assert await database.read(names) == ["a", "before"]
    assert len(numbers) == 2  # it ran again


@pytest.fixture
def sessions(postgres_url: str) -> Iterator[tuple[PostgresSession, PostgresSession]]:
    """Two connections of one writer: the one that was lost, and the one that it made then."""
    opened = [PostgresSession(Line(postgres_url, "insula", postgres._WRITING)) for _ in range(2)]
    lost, made = opened
    made._writer = lost._writer
    yield lost, made
    for session in opened:
        session.close()


def marked(session: PostgresSession, name: str) -> int:
    """Write something in a transaction that is left open; return its mark."""
    session.begin(serial=False)
    put(name)(session.connection)
    return session._mark


async def test_nothing_is_said_of_a_commit_that_is_under_way(
    database: PostgresDatabase, sessions: tuple[PostgresSession, PostgresSession]
) -> None:
    lost, made = sessions
    mark = marked(lost, "a")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        made.settle(mark)
    lost.commit()
    assert made.settle(mark)
    mark = marked(lost, "b")
    lost.rollback()
    assert not made.settle(mark)
    assert not made.settle(mark), "asked again, as when the answer was lost"


async def test_a_commit_that_arrives_after_its_repetition_fails(
    database: PostgresDatabase, sessions: tuple[PostgresSession, PostgresSession]
) -> None:
    lost, made = sessions
    assert not made.settle(next(lost._numbers))
    lost._numbers = count(1)  # the same was held up on its way, and arrives now
    with pytest.raises(IntegrityError, match="commits_pkey"):
        marked(lost, "a")
    lost.rollback()
    assert await database.read(names) == []


async def test_marks_are_taken_away(
    database: PostgresDatabase,
    sessions: tuple[PostgresSession, PostgresSession],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for that of a commit in doubt, what comes after it, and what came too late."""
    monkeypatch.setattr(postgres_session, "_SWEEP_EVERY", 5)
    lost, made = sessions

    def commit(name: str) -> None:
        marked(lost, name)
        lost.commit()

    def numbers(connection: Connection) -> list[int]:
        query = select(commits.c.number).where(commits.c.writer == lost._writer)
        return sorted(connection.scalars(query))

    for name in "abcde":
        commit(name)
    assert await database.read(numbers) == [5]
    lost._unsettled.add(6)
    assert not made.settle(6)
    next(lost._numbers)
    for name in "fghi":
        commit(name)
    assert await database.read(numbers) == [6, 7, 8, 9, 10]
    lost._unsettled.clear()
    for name in "jklmn":
        commit(name)
    assert await database.read(numbers) == [6, 15]


async def test_marks_of_processes_that_ended_long_ago_are_taken_away(postgres_url: str) -> None:
    first = await open_postgres(postgres_url)
    now = clock.now_ms()
    ages = [
        {"writer": 1, "number": days, "stands": True, "created_at": now - days * clock.DAY_MS}
        for days in (6, 8)
    ]
    await first.write(lambda connection: connection.execute(insert(commits), ages))
    await first.close()
    again = await open_postgres(postgres_url)
    query = select(commits.c.number).where(commits.c.writer == 1)
    assert await again.read(lambda connection: connection.scalars(query).all()) == [6]
    await again.close()


async def test_an_error_of_the_way_that_libpq_forgives_is_not_forgiven(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the machine has no memory for what arrives: the connection counts as good then, and
    the answer is still to come."""
    session = database._writer._session
    assert isinstance(session, PostgresSession)
    await database.write(put("a"))
    pipeline = session._line.raw.own_pipeline
    monkeypatch.setattr(pipeline, "_next", broken := Mock(side_effect=psycopg.OperationalError))
    async with asyncio.timeout(20):
        assert await database.write(put("b")) == "b"
    broken.assert_called_once()
    assert session._line.raw.own_pipeline is not pipeline
    assert await database.write(put("c")) == "c"
    assert await database.read(names) == ["a", "b", "c"]


async def test_a_server_that_takes_no_writes_any_more_is_left(database: PostgresDatabase) -> None:
    """It may have become a standby, and another host of the URL takes them."""

    def refused(connection: Connection) -> str:
        driver(connection).execute("SET TRANSACTION READ ONLY")
        return put("a")(connection)

    def session(connection: Connection) -> int:
        return int(driver(connection).execute("SELECT pg_backend_pid()").fetchone()[0])

    for write in (database.write, database.background):
        before = await write(session)
        with pytest.raises(Unavailable, match="can only be read"):
            await write(refused)
        assert await write(session) != before


async def test_what_checks_sees_what_was_committed_before_whatever_the_default_is(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    level = "default_transaction_isolation = 'repeatable read'"
    postgres_server.execute(f"ALTER DATABASE {name} SET {level}")
    one, two = await open_postgres(postgres_url), await open_postgres(postgres_url)
    inside, go = threading.Event(), threading.Event()

    def first(connection: Connection) -> None:
        put("a")(connection)
        inside.set()
        assert go.wait(20)

    storing = one.submit(first)
    await asyncio.to_thread(inside.wait, 20)
    seeing = two.submit(names)
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    await until(lambda: bool(postgres_server.execute(waiting, name)))
    go.set()
    await storing
    assert await seeing == ["a"]
    await one.close()
    await two.close()


async def test_a_commit_without_an_answer_waits_for_the_server(
    database: PostgresDatabase, proxy: Proxy
) -> None:
    proxy.cut_at(b"COMMIT", "after")
    pending = database.submit(put("a"))
    await proxy.tripped.wait()
    await proxy.refuse()
    with pytest.raises(Unavailable):  # others are told at once
        await database.write(put("other"))
    assert not pending.done()
    await proxy.listen()
    async with asyncio.timeout(20):
        assert await pending == "a"
    await eventually(database, put("b"))
    assert {"a", "b"} <= set(await database.read(names))


async def test_of_a_commit_that_nobody_answers_before_the_end_it_is_said_that_nobody_knows(
    database: PostgresDatabase, proxy: Proxy
) -> None:
    proxy.cut_at(b"COMMIT", "after")
    pending = database.submit(put("a"))
    await proxy.tripped.wait()
    await proxy.refuse()
    await database.close()
    with pytest.raises(Unavailable, match="did not say whether this was stored"):
        await pending
    await proxy.listen()


async def test_a_server_that_falls_silent_when_it_is_asked_of_a_commit_is_asked_again(
    database: PostgresDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, loop = database._writer, asyncio.get_running_loop()
    monkeypatch.setattr(writer, "_deadline", 0.3)
    session = writer._session
    assert isinstance(session, PostgresSession)
    settle, given_up = session.settle, asyncio.Event()

    async def stall() -> None:
        proxy.stall()

    def silent(mark: int) -> bool:
        if given_up.is_set():
            return settle(mark)
        session._line.connect()
        asyncio.run_coroutine_threadsafe(stall(), loop).result(10)
        try:
            return settle(mark)
        finally:
            loop.call_soon_threadsafe(given_up.set)

    monkeypatch.setattr(session, "settle", silent)
    proxy.cut_at(b"COMMIT", "after")
    pending = database.submit(put("a"))
    async with asyncio.timeout(20):
        await given_up.wait()
        proxy.go_on()
        assert await pending == "a"
    assert await database.read(names) == ["a"]


async def test_a_lock_that_is_not_had_after_a_reconnect_fails_its_group_alone(
    proxy: Proxy,
    postgres_server: PostgresServer,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres, "_WRITING", postgres._WRITING._replace(lock_ms=200))
    database = await open_postgres(postgres_url.replace(str(postgres_server.port), str(proxy.port)))
    await database.write(put("a"))
    other = psycopg.connect(postgres_url)
    other.execute("SELECT pg_advisory_xact_lock(%s::bigint)", (SERIAL_LOCK,))
    proxy.cut()
    for name in ("b", "c"):  # the second finds the connection that was made for the first
        with pytest.raises(Unavailable, match="another process holds"):
            await database.write(put(name))
    assert await database.submit(put("d"), fenced=True) == "d"
    other.close()
    assert await database.write(put("e")) == "e"
    assert await database.read(names) == ["a", "d", "e"]
    await database.close()


async def test_a_server_that_is_away_is_unavailable_and_comes_back(
    database: PostgresDatabase, proxy: Proxy
) -> None:
    await proxy.refuse()
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            await database.write(put("a"))
        assert caught.value.retry_after == 1
        with pytest.raises(Unavailable, match="cannot be reached"):
            await database.read(names)
        with pytest.raises(Unavailable, match="cannot be reached"):
            await database.autocommit(names)
    await proxy.listen()
    assert await eventually(database, put("b")) == "b"
    assert await database.read(names) == ["b"]


async def test_a_restarted_server_is_met_again(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = await open_postgres(postgres_url)
    stored: list[str] = []
    ended = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not ended.is_set():
            with suppress(Unavailable):
                stored.append(await database.write(put(f"{writer}-{number}")))
            number += 1
            await asyncio.sleep(0.005)  # so that refusals do not fill the processor

    async with asyncio.TaskGroup() as group:
        for writer in range(4):
            group.create_task(write(writer))
        for end in (postgres_server.stop, postgres_server.kill):
            known = len(stored)
            await until(lambda known=known: len(stored) >= known + 20)
            await asyncio.to_thread(end)
            postgres_server.start()  # in this thread, whose end is the server's
        await eventually(database, put("last"))
        ended.set()
    found = await database.read(names)
    assert set(stored) <= set(found)
    assert set(found) - set(stored) == {"last"}  # nobody was told of a failure that was none
    await database.close()


async def test_a_stalled_connection_is_given_up(
    database: PostgresDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database._writer, "_deadline", 0.3)
    monkeypatch.setattr(database._readers, "_deadline", 0.3)
    await database.write(put("a"))
    proxy.stall()
    reading = asyncio.create_task(database.read(names))
    writing = database.submit(put("b"))
    with pytest.raises(Unavailable):
        await reading
    proxy.go_on()
    async with asyncio.timeout(20):
        await asyncio.wait([writing])
    await eventually(database, put("c"))
    found = await database.read(names)
    assert ("b" in found) is (writing.exception() is None)
    assert "c" in found


async def test_a_cancelled_query_ends_on_the_server(
    database: PostgresDatabase, postgres_server: PostgresServer
) -> None:
    asked = threading.Event()

    def slow(connection: Connection) -> None:
        asked.set()
        driver(connection).execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(database.read(slow))
    await asyncio.to_thread(asked.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)'"
        " AND pid <> pg_backend_pid()"
    )
    await until(lambda: not postgres_server.execute(query))
    assert await database.read(names) == []


async def test_units_of_two_processes_see_each_other_stored(postgres_url: str) -> None:
    """Check then act: with both at it, each number is taken once."""
    one, two = await open_postgres(postgres_url), await open_postgres(postgres_url)

    def take(connection: Connection) -> str:
        name = f"{len(names(connection)):04}"
        return put(name)(connection)

    taken = await asyncio.gather(
        *[database.write(take) for _ in range(40) for database in (one, two)]
    )
    assert sorted(taken) == [f"{number:04}" for number in range(80)]
    await one.close()
    await two.close()


async def test_fenced_units_do_not_wait_for_the_units_of_others(postgres_url: str) -> None:
    one, two = await open_postgres(postgres_url), await open_postgres(postgres_url)
    begun, proceed = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        begun.set()
        proceed.wait(10)

    held = one.submit(hold)
    await asyncio.to_thread(begun.wait, 10)
    async with asyncio.timeout(5):
        assert await two.submit(put("fenced"), fenced=True) == "fenced"
        assert await two.autocommit(names) == ["fenced"]
    waiting = two.submit(put("in turn"))
    proceed.set()
    await held
    assert await waiting == "in turn"
    await one.close()
    await two.close()


async def test_a_deadlock_is_run_again(postgres_url: str) -> None:
    one, two = await open_postgres(postgres_url), await open_postgres(postgres_url)
    for name in "ab":
        await one.write(put(name))
    met = threading.Barrier(2)

    def crosswise(first: str, second: str) -> Callable[[Connection], None]:
        def unit(connection: Connection) -> None:
            raw = driver(connection)
            raw.execute("UPDATE facts SET value = value || ?::bytea WHERE name = ?", (b"1", first))
            with suppress(threading.BrokenBarrierError):
                met.wait(1)  # the first time; run again, it has the rows to itself
            raw.execute("UPDATE facts SET value = value || ?::bytea WHERE name = ?", (b"2", second))

        return unit

    await asyncio.gather(
        one.submit(crosswise("a", "b"), fenced=True), two.submit(crosswise("b", "a"), fenced=True)
    )
    found = await one.read(
        lambda c: driver(c).execute("SELECT value FROM facts WHERE name IN ('a', 'b')").fetchall()
    )
    assert all(len(value) == 3 for (value,) in found)
    await one.close()
    await two.close()


async def test_counters_of_several_processes_add_up(postgres_url: str) -> None:
    nodes_of = [await open_postgres(postgres_url, slot=slot) for slot in (0, 1, 1)]

    def bump(connection: Connection) -> None:
        counters.bump(connection, "a", "w", "RUNNING", "ENDPOINT")

    await asyncio.gather(*[one.submit(bump, fenced=True) for one in nodes_of for _ in range(20)])
    for one in nodes_of:
        assert await one.read(lambda connection: counters.count(connection, "a")) == 60
        await one.close()


async def test_beside_is_stored_statement_by_statement(postgres_url: str) -> None:
    database = await open_postgres(postgres_url)

    def unit(connection: Connection) -> None:
        connection.execute(
            insert(nodes).values(token="t", name="n", expires_at=now_ms(connection), started_at=0)
        )
        raise LookupError

    with pytest.raises(LookupError):
        await database.autocommit(unit)
    rows = await database.read(
        lambda connection: driver(connection).execute("SELECT token FROM nodes").fetchall()
    )
    assert rows == [("t",)]
    await database.close()


async def test_aside_is_a_transaction_of_its_own(database: PostgresDatabase, proxy: Proxy) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> str:
        put("slow")(connection)
        inside.set()
        assert go_on.wait(10)
        return put("slow too")(connection)

    running = asyncio.create_task(database.background(slow))
    await asyncio.to_thread(inside.wait, 10)
    assert await database.write(put("a")) == "a"  # nobody waits for it
    assert await database.read(names) == ["a"]
    go_on.set()
    assert await running == "slow too"
    assert await database.read(names) == ["a", "slow", "slow too"]

    def fails(connection: Connection) -> None:
        put("b")(connection)
        raise LookupError

    with pytest.raises(LookupError):
        await database.background(fails)

    def goes_on(connection: Connection) -> None:
        put("b")(connection)
        with suppress(IntegrityError):
            put("b")(connection)

    with pytest.raises(RuntimeError, match="after a statement that failed"):
        await database.background(goes_on)
    proxy.cut()
    assert await database.background(put("c")) == "c"
    assert await database.read(names) == ["a", "c", "slow", "slow too"]


async def test_aside_gives_way_to_whom_it_would_block_for_ever(database: PostgresDatabase) -> None:
    for name in ("a", "b"):
        await database.write(put(name))
    one, two = threading.Event(), threading.Event()

    def change(connection: Connection, name: str) -> None:
        driver(connection).execute("UPDATE facts SET value = value WHERE name = ?", (name,))

    def aside(connection: Connection) -> None:
        change(connection, "a")
        one.set()
        assert two.wait(10)
        change(connection, "b")

    def unit(connection: Connection) -> str:
        change(connection, "b")
        two.set()
        assert one.wait(10)
        change(connection, "a")
        return "done"

    running = asyncio.create_task(database.background(aside))
    assert await database.write(unit) == "done"
    with suppress(Unavailable):  # if it was the one that the server chose
        await running


@pytest.mark.parametrize(
    ("given", "durable", "holds"),
    [
        ("off", True, "on"),
        ("off", False, "off"),
        ("remote_apply", True, "remote_apply"),
        ("local", True, "local"),
    ],
)
async def test_what_is_told_is_on_the_disk_whatever_the_server_s_default_is(
    postgres_server: PostgresServer, postgres_url: str, given: str, durable: bool, holds: str
) -> None:
    def setting(connection: Connection) -> str:
        row = driver(connection).execute("SHOW synchronous_commit").fetchone()
        return str(row[0])

    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {given}')
    database = await open_postgres(postgres_url, durable=durable)
    assert await database.write(setting) == holds
    backend = await database.write(
        lambda c: driver(c).execute("SELECT pg_backend_pid()").fetchone()
    )
    postgres_server.execute(f"SELECT pg_terminate_backend({backend[0]})")
    assert await eventually(database, setting) == holds  # on the next connection, too
    await database.close()


async def test_what_a_server_may_lose_is_seen(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await look(postgres_url)).risks == []
    # Of what matters nothing can be switched off here, so something else is.
    monkeypatch.setattr(postgres, "_RISKS", {**postgres._RISKS, "enable_seqscan": "words"})
    assert (await look(postgres_url)).risks == ["enable_seqscan is off: words"]


async def test_a_full_disk_is_told_and_spoils_nothing_else(database: PostgresDatabase) -> None:
    def full(connection: Connection) -> None:
        put("lost")(connection)
        raising = "DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$"
        driver(connection).execute(raising)

    failing, beside = database.submit(full), database.submit(put("a"))
    with pytest.raises(Unavailable, match="the database's disk is full") as caught:
        await failing
    assert caught.value.retry_after == 1
    assert await beside == "a"
    with pytest.raises(Unavailable, match="the database's disk is full"):
        await database.background(full)
    assert await database.write(put("b")) == "b"
    assert await database.read(names) == ["a", "b"]


async def test_nothing_is_left_open(postgres_server: PostgresServer, postgres_url: str) -> None:
    for _ in range(2):
        database = await open_postgres(postgres_url)
        await asyncio.gather(*[database.read(names) for _ in range(20)])
        await database.autocommit(names)
        await database.background(names)
        await database.close()
    name = postgres_url.rpartition("/")[2]
    query = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}'"
    await until(lambda: not postgres_server.execute(query))
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith("insula-")
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("/test_", "/missing_"), "does not exist"),
        (lambda url: url.replace("insula@", "nobody:s3cret@"), 'role "nobody" does not exist'),
        (lambda url: "postgresql://insula:s3cret@127.0.0.1:1/x", "Connection refused"),
        (lambda url: "postgresql://insula:s3cret@127.0.0.1:5432", "name of the database"),
        (lambda url: "postgresql:/insula:s3cret@", "must begin with postgresql://"),
        (lambda url: url + "?s3cret=s3cret", "is no URL of PostgreSQL"),
        (lambda url: "postgresql://insula:p@s3cret@127.0.0.1:1/x", "is no URL of PostgreSQL"),
    ],
)
async def test_a_url_that_cannot_be_used_says_why_and_no_password(
    postgres_url: str, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(DatabaseUnusable, match=words) as caught:
        await open_postgres(change(postgres_url))
    assert "s3cret" not in str(caught.value)


async def test_a_database_with_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.execute(
        "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
    )
    with pytest.raises(DatabaseUnusable, match="ENCODING 'UTF8'"):
        await open_postgres(postgres_server.url("ascii"))


async def test_a_database_that_goes_away_as_it_is_opened_is_told_in_words(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, prepare = postgres_server.create(), postgres._prepare

    def prepare_and_lose(*given: str) -> None:
        prepare(*given)
        postgres_server.drop(url)

    monkeypatch.setattr(postgres, "_prepare", prepare_and_lose)
    with pytest.raises(DatabaseUnusable, match="INSULA_DATABASE_URL"):
        await open_postgres(url)


def test_the_test_server_is_really_asked(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
