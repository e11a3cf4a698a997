import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.journal.rows import (
    chunk,
    create,
    done,
    event_rows,
    kept_journal,
    over,
    run_row,
    started,
    steal,
    wire,
)

from insula.engine.events import RunEnded
from insula.engine.failures import StepFailure
from insula.engine.ports import Fenced, Recorder
from insula.errors import Unavailable
from insula.journal import log as module
from insula.journal import store
from insula.journal.journal import Journal
from insula.journal.log import RunLog
from insula.journal.store import Counted
from insula.storage import counters
from insula.storage.database import Database
from insula.storage.dialect import driver

DATABASES = ("sqlite", "postgres")


async def test_a_log_is_a_recorder(database: Database, journal: Journal) -> None:
    log: Recorder = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()


async def test_what_is_recorded_together_is_one_row(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    log.record(chunk("a"))
    log.record(chunk("b"))
    await log.stored()
    log.record(chunk("c"))
    await log.stored()
    rows = await event_rows(database, "run_a")
    assert rows == [(2, wire([started(), chunk("ab")])), (3, wire([chunk("c")]))]
    row = await run_row(database, "run_a")
    assert (row.seq, row.updated_at) == (3, 15)
    assert log.seq == 3


async def test_events_are_stored_in_order_though_nobody_waits(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    for number in range(200):
        log.record(done(f"s{number}"))
        if number % 7 == 0:
            await asyncio.sleep(0)
    await log.stored()
    events, seq = await journal.read("run_a")
    assert wire(events) == wire([done(f"s{number}") for number in range(200)])
    assert seq == 200


async def test_many_runs_share_a_commit(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [journal.open(await create(database, f"run_{number:02}")) for number in range(40)]
    statements: list[str] = []
    for name in ("update_rows", "insert_rows"):
        write = getattr(store, name)

        def listen(*given: Any, name: str = name, write: Any = write) -> Any:
            statements.append(name)
            return write(*given)

        monkeypatch.setattr(store, name, listen)
    for log in logs:
        log.record(started())
    await asyncio.gather(*[log.stored() for log in logs])
    # One group, or two where the writer was quick to take what came first.
    assert statements in (["update_rows", "insert_rows"], ["update_rows", "insert_rows"] * 2)


async def test_what_lingers_is_stored_with_the_end(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "linger", lambda log: None)  # as if no moment passed
    log = journal.open(await create(database, "run_a"), lingers=True)
    batches: list[object] = []
    append = store.append
    monkeypatch.setattr(store, "append", lambda *given: batches.append(given) or append(*given))
    for event in (started(), done("a"), done("b")):
        log.record(event)
        await asyncio.sleep(0)
    assert await log.end(over())
    assert batches == []
    events, seq = await journal.read("run_a")
    assert (len(events), seq) == (4, 4)


@pytest.mark.parametrize("by", ["stored", "moment", "listener", "listener before"])
async def test_what_lingers_is_stored_soon(database: Database, journal: Journal, by: str) -> None:
    log = journal.open(await create(database, "run_a"), lingers=True)
    heard = journal.subscribe("run_a") if by == "listener before" else None
    log.record(started())
    if by == "stored":
        await log.stored()
    elif by == "listener":
        heard = log.subscribe()
    if heard is not None:
        assert await anext(heard) == (1, [started()])
        heard.close()
    async with asyncio.timeout(10):
        while (await journal.read("run_a"))[1] == 0:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0.01)
    log.record(done("a"))  # and from then on at once
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log.stalled_since is not None
    await log.stored()


async def test_what_lingers_is_stored_by_the_close(database: Database, journal: Journal) -> None:
    journal.open(await create(database, "run_a"), lingers=True).record(started())
    await journal.close()
    assert (await journal.read("run_a"))[1] == 1


async def test_nothing_is_told_before_the_commit(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = journal.open(await create(database, "run_a"))
    heard = log.subscribe()
    reached, proceed = threading.Event(), threading.Event()

    def flush(connection: Connection) -> None:
        reached.set()
        proceed.wait(10)

    monkeypatch.setattr("insula.storage.counters.flush", flush)
    log.record(started())
    waiting = asyncio.create_task(log.stored())
    hearing = asyncio.create_task(anext(heard))
    await asyncio.to_thread(reached.wait, 10)
    assert await journal.read("run_a") == ([], 0)
    assert not waiting.done()
    assert not hearing.done()
    proceed.set()
    await waiting
    assert (await hearing)[0] == 1
    assert (await journal.read("run_a"))[1] == 1


async def test_a_run_of_another_is_fenced_and_the_rest_of_the_group_goes_on(
    database: Database, journal: Journal
) -> None:
    logs = [journal.open(await create(database, f"run_{name}")) for name in "abc"]
    await steal(database, "run_b")
    for log in logs:
        log.record(started())
    outcomes = await asyncio.gather(*[log.stored() for log in logs], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Fenced, type(None)]
    assert await event_rows(database, "run_b") == []
    assert (await run_row(database, "run_b")).seq == 0
    assert logs[1].fenced
    assert journal.find("run_b") is None
    logs[1].record(started())  # dropped
    with pytest.raises(Fenced):
        await logs[1].stored()
    assert not await logs[1].end(over())


async def test_a_run_that_is_elsewhere_in_its_journal_is_fenced(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a", seq=5), seq=4)
    log.record(started())
    with pytest.raises(Fenced):
        await log.stored()


async def test_the_end_is_the_same_fence(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    await steal(database, "run_a")
    finished: list[int] = []
    assert not await log.end(over(), {}, lambda connection: finished.append(1))
    row = await run_row(database, "run_a")
    assert (row.status, row.ended_at, row.seq) == ("RUNNING", None, 0)
    assert finished == []


async def test_the_end_writes_the_row_the_journal_and_the_counters(
    database: Database, journal: Journal
) -> None:
    await create(database, "run_a")
    log = journal.open("run_a", 0, Counted("app_a", "work_a", "RUNNING", "ENDPOINT"))
    log.record(started())
    await log.stored()
    log.record(done("a"))

    def finish(connection: Connection) -> None:
        text = "INSERT INTO facts (name, value) VALUES ('finished', ?)"
        driver(connection).execute(text, (b"1",))

    columns = {"credits": 2.5, "retention_due_at": 99}
    assert await log.end(RunEnded(at=30, status="FAILED", error="boom"), columns, finish)
    row = await run_row(database, "run_a")
    assert (row.status, row.error, row.ended_at, row.updated_at) == ("FAILED", "boom", 30, 30)
    assert (row.seq, row.credits, row.retention_due_at) == (3, 2.5, 99)
    assert await event_rows(database, "run_a") == []
    events, seq = await journal.read("run_a")
    last = RunEnded(at=30, status="FAILED", error="boom")
    assert (wire(events), seq) == (wire([started(), done("a"), last]), 3)
    assert await counts(database) == {"RUNNING": 0, "FAILED": 1}
    assert journal.find("run_a") is None
    assert log.final == "FAILED"


async def counts(database: Database) -> dict[str, int]:
    return await database.read(
        lambda connection: {
            status: counters.count(connection, "app_a", status=status)
            for status in ("RUNNING", "FAILED")
        }
    )


async def test_without_being_told_the_end_finds_its_counter(
    database: Database, journal: Journal
) -> None:
    for name, hidden in (("run_a", False), ("run_b", True)):
        log = journal.open(await create(database, name, hidden=hidden))
        assert await log.end(RunEnded(at=1, status="FAILED"))
    assert await counts(database) == {"RUNNING": 0, "FAILED": 1}


async def test_nothing_follows_the_end(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    ending = asyncio.create_task(log.end(over()))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="nothing follows"):
        log.record(started())
    with pytest.raises(RuntimeError, match="is being written"):
        await log.end(over())
    assert await ending
    with pytest.raises(RuntimeError):
        log.record(started())


async def test_only_one_of_two_owners_ends_a_run(database: Database, journal: Journal) -> None:
    other = Journal(database, "node_other")
    for number in range(20):
        run_id = await create(database, f"run_{number:02}")
        ours, theirs = journal.open(run_id), other.open(run_id)
        thief = asyncio.create_task(steal(database, run_id))
        outcomes = await asyncio.gather(ours.end(over()), theirs.end(over()))
        await thief
        assert sum(outcomes) == 1
        events, seq = await journal.read(run_id)
        assert (len(events), seq) == (1, 1)


async def test_the_end_waits_for_the_batch_under_way(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await asyncio.sleep(0)  # under way now
    assert await log.end(over())
    events, _ = await journal.read("run_a")
    assert wire(events) == wire([started(), over()])


async def test_an_end_whose_finish_fails_may_be_written_again(
    database: Database, journal: Journal
) -> None:
    logs = [journal.open(await create(database, f"run_{name}")) for name in "abc"]

    def fail(connection: Connection) -> None:
        raise LookupError("no such webhook")

    outcomes = await asyncio.gather(
        logs[0].end(over()), logs[1].end(over(), {}, fail), logs[2].end(over()),
        return_exceptions=True,
    )  # fmt: skip
    assert outcomes[0] is True
    assert isinstance(outcomes[1], LookupError)
    assert outcomes[2] is True
    assert (await run_row(database, "run_b")).ended_at is None
    logs[1].record(done("late"))
    assert await logs[1].end(RunEnded(at=40, status="FAILED"))
    events, _ = await journal.read("run_b")
    assert wire(events) == wire([done("late"), RunEnded(at=40, status="FAILED")])


async def test_a_cancelled_end_that_is_under_way_stands(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    heard = log.subscribe()
    ending = asyncio.create_task(log.end(over()))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert [seq async for seq, _ in heard] == [1]
    assert (await run_row(database, "run_a")).status == "COMPLETED"


async def test_an_end_cancelled_before_it_is_under_way_is_withdrawn(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    hold = threading.Event()
    first = database.submit(lambda connection: hold.wait(10) and None)
    log.record(started())
    await asyncio.sleep(0)
    ending = asyncio.create_task(log.end(over()))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    log.record(done("a"))
    hold.set()
    await first
    await log.stored()
    assert await log.end(over())
    events, _ = await journal.read("run_a")
    assert wire(events) == wire([started(), done("a"), over()])


async def test_a_cancelled_waiter_disturbs_nobody(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    waiting = [asyncio.create_task(log.stored()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        asyncio.CancelledError,
        type(None),
    ]


async def test_an_event_that_cannot_be_stored_fails_where_it_is_recorded(
    database: Database, journal: Journal
) -> None:
    logs = [journal.open(await create(database, f"run_{name}")) for name in "ab"]
    with pytest.raises(StepFailure):
        logs[0].record(done("\ud800"))
    logs[1].record(started())
    await asyncio.gather(*[log.stored() for log in logs])
    assert (logs[0].seq, logs[1].seq) == (0, 1)


async def test_while_the_disk_takes_nothing_it_is_tried_again(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_FIRST", 0.001)
    monkeypatch.setattr(module, "_RETRY_MAX", 0.002)
    log = journal.open(await create(database, "run_a"))
    failures = refuse(database, monkeypatch, 3)
    log.record(started())
    await log.stored()
    assert failures == []
    failures += [1, 2, 3]
    log.record(done("a"))
    assert await log.end(over())
    assert failures == []
    events, seq = await journal.read("run_a")
    assert (wire(events), seq) == (wire([started(), done("a"), over()]), 3)


def refuse(database: Database, monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let the next groups fail as on a full disk; return what is left of the failures."""
    failures = list(range(times))
    commit = counters.flush

    def flush(connection: Connection) -> None:
        if failures:
            failures.pop()
            raise Unavailable("the disk is full")
        commit(connection)

    monkeypatch.setattr("insula.storage.counters.flush", flush)
    return failures


async def test_when_the_journal_closes_nothing_is_tried_again(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_FIRST", 60.0)
    one, two = [journal.open(await create(database, f"run_{name}")) for name in "ab"]
    refuse(database, monkeypatch, 1_000)
    one.record(started())
    waiting = asyncio.create_task(one.stored())
    ending = asyncio.create_task(two.end(over()))
    while len(journal._retries) < 2:  # noqa: ASYNC110  # there is nothing to wait on
        await asyncio.sleep(0)
    await journal.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await ending


async def test_a_long_journal_is_left_to_the_compactor(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 500)
    log = journal.open(await create(database, "run_a"))
    recorded = [done(f"s{number}") for number in range(20)]
    for event in recorded:
        log.record(event)
        await log.stored()
    assert await log.end(over())
    assert log.left_rows
    assert await kept_journal(database, "run_a") is None
    assert len(await event_rows(database, "run_a")) == 21
    before = await journal.read("run_a")
    assert await journal.compact("run_a")
    after = await journal.read("run_a")
    assert wire(before[0]) == wire(after[0]) == wire([*recorded, over()])
    assert await event_rows(database, "run_a") == []


async def test_a_log_goes_on_where_another_process_left_it(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    await steal(database, "run_a")
    other = Journal(database, "node_other")
    taken: RunLog = other.open("run_a", seq=1)
    taken.record(done("a"))
    assert await taken.end(over())
    await other.compact("run_a")
    assert wire((await journal.read("run_a"))[0]) == wire([started(), done("a"), over()])
    await other.close()


async def test_without_a_lease_nothing_begins_and_what_is_another_s_is_dropped(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    journal.lapse()
    waiting = asyncio.create_task(log.stored())
    await asyncio.sleep(0)
    journal.adopt("node_again", journal.clock() + 5)
    log.drop()
    with pytest.raises(Fenced):
        await waiting
