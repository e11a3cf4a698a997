import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journal.rows import TOKEN, create, done, over, started, steal, wire

from insula.engine.events import Event
from insula.errors import Unavailable
from insula.jobs.memory_signals import Exchange, MemorySignals
from insula.journal import elsewhere
from insula.journal.journal import Journal
from insula.journal.subscription import Heard
from insula.storage.sqlite import SqliteDatabase, open_sqlite


class Pair:
    """Two nodes over one database, and what they say to each other."""

    def __init__(self, database: SqliteDatabase) -> None:
        exchange = Exchange()
        self.signals = [MemorySignals(exchange), MemorySignals(exchange)]
        self.here = Journal(database, TOKEN, self.signals[0])
        self.there = Journal(database, "node_there", self.signals[1])

    async def close(self) -> None:
        for journal in (self.here, self.there):
            await journal.close()
        for signals in self.signals:
            await signals.close()


@pytest.fixture
async def pair(database: SqliteDatabase) -> AsyncIterator[Pair]:
    opened = Pair(database)
    yield opened
    await opened.close()


async def collect(journal: Journal, run_id: str, after: int = 0) -> list[Heard]:
    async with contextlib.aclosing(journal.follow(run_id, after)) as batches:
        return [batch async for batch in batches]


def flat(batches: list[Heard]) -> list[Event]:
    return [event for _, events in batches for event in events]


async def listening(journal: Journal) -> None:
    assert journal.elsewhere is not None
    while not journal.elsewhere._woken:  # noqa: ASYNC110  # there is nothing to wait on
        await asyncio.sleep(0)


async def test_a_run_is_followed_from_the_node_that_does_not_execute_it(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 60)  # messages alone
    log = pair.here.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    following = pair.there.follow("run_a")
    assert (await anext(following))[0] == 1
    log.record(done("a"))
    assert wire((await asyncio.wait_for(anext(following), 5))[1]) == wire([done("a")])
    assert await log.end(over())
    assert wire((await asyncio.wait_for(anext(following), 5))[1]) == wire([over()])
    with pytest.raises(StopAsyncIteration):
        await anext(following)
    assert pair.there.elsewhere is not None
    assert pair.there.elsewhere._woken == {}


@pytest.mark.parametrize("how", ["follow", "wait"])
async def test_who_goes_away_while_it_begins_to_listen_is_forgotten(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    asked = asyncio.Event()

    async def never(subject: str, heard: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(pair.signals[1], "listen", never)
    there = pair.there.elsewhere
    assert there is not None
    work = anext(there.follow("run_a", 0)) if how == "follow" else there.wait("run_a", 60)
    task = asyncio.ensure_future(work)
    await asyncio.wait_for(asked.wait(), 10)
    assert there._woken
    task.cancel()
    await asyncio.wait([task])
    assert there._woken == {}


async def test_without_messages_it_is_looked_again(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 0.01)
    pair.signals[1].cut()
    log = pair.here.open(await create(database, "run_a"))
    following = asyncio.create_task(collect(pair.there, "run_a"))
    await listening(pair.there)
    log.record(started())
    await log.end(over())
    assert wire(flat(await asyncio.wait_for(following, 5))) == wire([started(), over()])


async def test_what_was_missed_is_read_when_messages_come_again(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 60)
    log = pair.here.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    following = pair.there.follow("run_a")
    await anext(following)
    pair.signals[1].cut()
    waiting = asyncio.ensure_future(anext(following))
    log.record(done("a"))
    await log.stored()
    pair.signals[1].mend()
    assert (await asyncio.wait_for(waiting, 5))[0] == 2
    await following.aclose()


async def test_a_follower_goes_on_where_the_run_does(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 60)
    log = pair.here.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    following = pair.here.follow("run_a")
    assert (await anext(following))[0] == 1
    await steal(database, "run_a", "node_there")
    log.record(done("never"))
    waiting = asyncio.ensure_future(anext(following))
    taken = pair.there.open("run_a", seq=1)
    taken.record(done("a"))
    await taken.stored()
    assert wire((await asyncio.wait_for(waiting, 5))[1]) == wire([done("a")])
    assert await taken.end(over())
    assert wire((await asyncio.wait_for(anext(following), 5))[1]) == wire([over()])
    await following.aclose()


async def test_a_run_that_begins_here_after_all_is_heard_without_messages(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 60)
    pair.signals[0].cut()
    await create(database, "run_a", owner=None, status="PENDING")
    following = asyncio.create_task(collect(pair.here, "run_a"))
    await listening(pair.here)
    await steal(database, "run_a", TOKEN)
    await pair.here.open("run_a").end(over())
    assert wire(flat(await asyncio.wait_for(following, 5))) == wire([over()])


async def test_a_follower_outlasts_a_database_that_does_not_answer(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "_RETRIED", 0)
    await pair.here.open(await create(database, "run_a")).end(over())
    answers, read = [Unavailable("away"), Unavailable("away")], database.read

    async def sometimes(query: object) -> object:
        if answers:
            raise answers.pop()
        return await read(query)  # type: ignore[arg-type]  # whatever was asked

    monkeypatch.setattr(database, "read", sometimes)
    assert wire(flat(await collect(pair.there, "run_a"))) == wire([over()])


class Held:
    """Holds up what is read until it is let go."""

    def __init__(self, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.under_way = 0
        self.most = 0
        self.arrived = asyncio.Semaphore(0)
        self.going = asyncio.Event()
        self._read = database.read
        monkeypatch.setattr(database, "read", self.read)

    async def read(self, query: Any) -> Any:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.arrived.release()
        try:
            await self.going.wait()
            return await self._read(query)
        finally:
            self.under_way -= 1


async def test_many_who_follow_the_same_are_read_for_once(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 60)
    log = pair.here.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    following = [pair.there.follow("run_a") for _ in range(50)]
    for each in following:
        await anext(each)
    held = Held(database, monkeypatch)
    waiting = [asyncio.ensure_future(anext(each)) for each in following]
    log.record(done("a"))
    await log.stored()
    await held.arrived.acquire()
    # What is stored while it is being read is not missed, and who leaves takes it from nobody.
    log.record(done("b"))
    await log.stored()
    waiting[0].cancel()
    held.going.set()
    heard = await asyncio.gather(*waiting[1:])
    for number, each in enumerate(following[1:]):
        seq, events = heard[number]
        if seq == 2:
            seq, more = await asyncio.wait_for(anext(each), 5)
            events = [*events, *more]
        assert (seq, wire(events)) == (3, wire([done("a"), done("b")]))
    assert held.asked <= 4
    for each in following:
        await each.aclose()
    assert pair.there.elsewhere is not None
    assert pair.there.elsewhere._reads == {}


async def test_however_many_follow_few_reads_are_under_way(
    database: SqliteDatabase, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"run_{number}" for number in range(20)]
    for name in names:
        await create(database, name, owner="node_gone")
    held = Held(database, monkeypatch)
    following = [asyncio.ensure_future(anext(pair.there.follow(name))) for name in names]
    for _ in range(elsewhere._READS_TOGETHER):
        await held.arrived.acquire()
    held.going.set()
    for _ in names[elsewhere._READS_TOGETHER :]:
        await held.arrived.acquire()
    for each in following:
        each.cancel()
    await asyncio.wait(following)
    assert held.most == elsewhere._READS_TOGETHER


async def test_closing_lets_followers_go(database: SqliteDatabase, pair: Pair) -> None:
    await create(database, "run_a", owner="node_gone")
    following = asyncio.create_task(collect(pair.here, "run_a"))
    await listening(pair.here)
    pair.here.stop_telling()
    assert await asyncio.wait_for(following, 5) == []


async def write(pair: Pair, sizes: list[int], *, compacted: bool) -> list[Event]:
    """Store batches of these sizes and the end; ``compacted``: as if the journal were long."""
    log = pair.here.open("run_a")
    written: list[Event] = []
    for number, size in enumerate(sizes):
        for place in range(size):
            written.append(done(f"s{number}_{place}"))
            log.record(written[-1])
        await log.stored()
    if compacted:
        log._kept = None  # it stays in rows, and is replaced later
    await log.end(over())
    if compacted:
        await pair.here.compact("run_a")
    return [*written, over()]


async def read_in_turns(pair: Pair, splits: list[int]) -> list[Event]:
    """Follow at one node, then at the other, and so on; change after these numbers of events."""
    seen: list[Event] = []
    for turn, split in enumerate([*splits, 10_000]):
        journal = (pair.here, pair.there)[turn % 2]
        async with contextlib.aclosing(journal.follow("run_a", len(seen))) as batches:
            async for last, events in batches:
                seen += events
                assert last == len(seen)
                if len(seen) >= split:
                    break
            else:
                return seen
    return seen


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    splits=st.lists(st.integers(0, 60), max_size=6),
    rows=st.integers(1, 3),
    compacted=st.booleans(),
)
def test_a_reader_that_changes_nodes_misses_and_repeats_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    splits: list[int],
    rows: int,
    compacted: bool,
) -> None:
    async def play(folder: Path) -> None:
        async with contextlib.AsyncExitStack() as stack:
            database = await open_sqlite(folder / "insula.db", "NORMAL")
            stack.push_async_callback(database.close)
            await create(database, "run_a")
            pair = Pair(database)
            stack.push_async_callback(pair.close)
            writing = write(pair, sizes, compacted=compacted)
            told, seen = await asyncio.gather(writing, read_in_turns(pair, splits))
            assert wire(seen) == wire(told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("insula.journal.read._ROWS", rows)
        asyncio.run(play(tmp_path_factory.mktemp("pair")))
