import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.journal.rows import create, done, over, started, steal, wire

from insula.engine.events import Event, RunEnded
from insula.engine.ports import Fenced
from insula.errors import Unavailable
from insula.journal import journal as module
from insula.journal import subscription
from insula.journal.journal import Journal
from insula.journal.subscription import Heard, SlowReader
from insula.storage.database import Database

DATABASES = ("sqlite", "postgres")


async def collect(journal: Journal, run_id: str, after: int = 0) -> list[Heard]:
    async with contextlib.aclosing(journal.follow(run_id, after)) as batches:
        return [batch async for batch in batches]


def flat(batches: list[Heard]) -> list[Event]:
    return [event for _, events in batches for event in events]


async def test_a_log_is_open_once(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    assert journal.find("run_a") is log
    with pytest.raises(RuntimeError, match="is open"):
        journal.open("run_a")


async def test_of_a_run_that_does_not_exist_there_is_nothing(journal: Journal) -> None:
    assert await journal.read("run_none") == ([], 0)
    assert await collect(journal, "run_none") == []


async def test_a_follower_of_an_ended_run_reads_all_and_is_done(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    log.record(done("a"))
    await log.end(over())
    everything = [started(), done("a"), over()]
    for after in range(-1, 5):
        found = await collect(journal, "run_a", after)
        assert wire(flat(found)) == wire(everything[max(0, after) :])
        assert [seq for seq, _ in found] == [3][: len(found)]


async def test_a_follower_hears_what_comes_until_the_end(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    following = journal.follow("run_a")
    assert (await anext(following))[0] == 1
    log.record(done("a"))
    assert (await anext(following))[0] == 2
    assert await log.end(over())
    assert wire((await anext(following))[1]) == wire([over()])
    with pytest.raises(StopAsyncIteration):
        await anext(following)
    assert journal._heard == {}


async def test_a_queued_run_can_be_followed_before_it_begins(
    database: Database, journal: Journal
) -> None:
    await create(database, "run_a", owner=None, status="PENDING")
    following = asyncio.create_task(collect(journal, "run_a"))
    while not journal._heard:  # noqa: ASYNC110  # there is nothing to wait on
        await asyncio.sleep(0)
    await steal(database, "run_a", journal.token)
    await journal.open("run_a").end(over())
    assert wire(flat(await following)) == wire([over()])


async def test_a_follower_that_leaves_is_forgotten(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    async with contextlib.aclosing(journal.follow("run_a")) as following:
        await anext(following)
        assert len(journal._heard["run_a"]) == 1
    assert journal._heard == {}


async def test_a_slow_follower_is_closed_and_the_run_goes_on(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "EVENTS_MAX", 5)
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    slow = journal.follow("run_a")
    await anext(slow)
    for number in range(20):
        log.record(done(f"s{number}"))
        await log.stored()
    with pytest.raises(SlowReader):
        await anext(slow)
    await log.end(over())
    resumed = await collect(journal, "run_a", after=1)
    assert len(flat(resumed)) == 21


async def test_followers_of_a_run_that_is_taken_over_are_let_go(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    following = journal.follow("run_a")
    await anext(following)
    await steal(database, "run_a")
    log.record(done("a"))
    with pytest.raises(Fenced):
        await anext(following)


async def test_closing_stores_what_was_recorded_and_lets_followers_go(
    database: Database,
) -> None:
    journal = Journal(database, "node_this")
    log = journal.open(await create(database, "run_a"))
    heard = log.subscribe()
    log.record(started())
    await journal.close()
    assert [seq async for seq, _ in heard] == [1]
    assert heard.reason == "closed"
    assert (await journal.read("run_a"))[1] == 1


async def test_closing_waits_for_no_database_that_neither_takes_nor_refuses(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CLOSING_MAX", 0.01)
    journal = Journal(database, "node_this")
    recording, ending = [journal.open(await create(database, f"run_{name}")) for name in "ab"]
    answers: list[asyncio.Future[Any]] = []

    def submit(*_: Any) -> asyncio.Future[Any]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    monkeypatch.setattr(database, "submit", submit)
    recording.record(started())
    waiting = [asyncio.create_task(recording.stored()), asyncio.create_task(ending.end(over()))]
    heard = recording.subscribe()
    while len(answers) < 2:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0)
    await journal.close()
    for task in waiting:
        with pytest.raises(Unavailable):
            await task
    assert heard.reason == "closed"
    for answer in answers:  # the database comes back, and nobody waits for it any more
        answer.set_exception(Unavailable("Try again."))


async def test_an_erased_run_has_no_events_and_no_follower_waits_for_any(
    database: Database, journal: Journal
) -> None:
    await journal.open(await create(database, "run_a")).end(over())
    await database.write(
        lambda connection: connection.exec_driver_sql("DELETE FROM run_data").rowcount
    )
    assert await journal.read("run_a") == ([], 1)
    assert await collect(journal, "run_a") == []


actions = st.lists(st.sampled_from(["record", "store", "follow", "turn"]), max_size=25)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=actions, resume=st.integers(0, 12))
async def test_no_follower_has_a_gap_or_a_repeat(
    database: Database, journal: Journal, actions: list[str], resume: int
) -> None:
    """Whenever it comes, before, between and after commits, and wherever it resumes."""
    await database.write(lambda connection: connection.exec_driver_sql("DELETE FROM runs").rowcount)
    await database.write(
        lambda connection: connection.exec_driver_sql("DELETE FROM run_data").rowcount
    )
    log = journal.open(await create(database, "run_a"))
    expected: list[Event] = []
    followers: list[tuple[int, asyncio.Task[list[Heard]]]] = []
    for action in [*actions, "follow"]:
        if action == "record":
            expected.append(done(f"s{len(expected)}"))
            log.record(expected[-1])
        elif action == "store":
            await log.stored()
        elif action == "turn":
            await asyncio.sleep(0)
        else:
            for after in (0, resume):
                task = asyncio.create_task(collect(journal, "run_a", after))
                followers.append((after, task))
    expected.append(RunEnded(at=99, status="COMPLETED"))
    assert await log.end(expected[-1])
    for after, task in followers:
        found = await task
        assert wire(flat(found)) == wire(expected[after:])
        last = after
        for seq, events in found:
            assert seq == max(last, after) + len(events)
            last = seq
    assert journal._heard == {}
