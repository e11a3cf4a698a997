import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.rows import create, done, event_rows, kept_journal, over, wire

from insula.errors import Unavailable
from insula.journal import compact as module
from insula.journal import log
from insula.journal.compact import Compactor
from insula.journal.journal import Journal
from insula.storage.database import Database
from insula.storage.dialect import driver

DATABASES = ("sqlite", "postgres")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "KEPT_MAX", 100)


async def ended(database: Database, journal: Journal, run_id: str, steps: int = 9) -> bytes:
    opened = journal.open(await create(database, run_id))
    events = [done(f"s{number}", output=b'"' + b"x" * 300 + b'"') for number in range(steps)]
    for event in events:
        opened.record(event)
        await opened.stored()
    assert await opened.end(over())
    return wire([*events, over()])


async def test_rows_become_one(database: Database, journal: Journal) -> None:
    expected = await ended(database, journal, "run_a")
    assert await journal.compact("run_a")
    assert await event_rows(database, "run_a") == []
    kept = await kept_journal(database, "run_a")
    assert kept is not None
    assert len(kept) < len(expected) / 4
    events, seq = await journal.read("run_a")
    assert (wire(events), seq) == (expected, 10)
    assert not await journal.compact("run_a")


async def test_in_steps_that_readers_never_notice(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BYTES_A_STEP", 500)
    expected = await ended(database, journal, "run_a")
    found: list[bytes] = []
    compacting = asyncio.create_task(journal.compact("run_a"))
    while not compacting.done():
        found.append(wire((await journal.read("run_a"))[0]))
    assert await compacting
    assert set(found) == {expected}
    assert await event_rows(database, "run_a") == []


async def test_a_compaction_that_was_broken_off_is_finished(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BYTES_A_STEP", 500)
    expected = await ended(database, journal, "run_a")
    writes = 0
    write = database.write

    async def stop(unit: object) -> object:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise Unavailable("the disk is full")
        return await write(unit)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(database, "write", stop)
    with pytest.raises(Unavailable):
        await journal.compact("run_a")
    assert 0 < len(await event_rows(database, "run_a")) < 10
    assert wire((await journal.read("run_a"))[0]) == expected
    assert await journal.compact("run_a")
    assert await event_rows(database, "run_a") == []
    assert wire((await journal.read("run_a"))[0]) == expected


async def test_live_and_erased_runs_are_left_alone(database: Database, journal: Journal) -> None:
    live = journal.open(await create(database, "run_live"))
    live.record(done("a"))
    await live.stored()
    await ended(database, journal, "run_erased")
    await database.write(
        lambda connection: (
            driver(connection)
            .execute("UPDATE runs SET erased_at = 5 WHERE id = 'run_erased'")
            .rowcount
        )
    )
    for run_id in ("run_live", "run_erased", "run_none"):
        assert not await journal.compact(run_id)
        assert await kept_journal(database, run_id) is None if run_id != "run_none" else True
    assert await database.read(module.left) == []


@pytest.mark.parametrize("limit", ["JOURNAL_MAX", "COMPRESSED_MAX"])
async def test_a_journal_that_is_too_long_stays_in_rows(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    expected = await ended(database, journal, "run_a")
    monkeypatch.setattr(module, limit, 100)
    assert not await journal.compact("run_a")
    assert len(await event_rows(database, "run_a")) == 10
    assert wire((await journal.read("run_a"))[0]) == expected


async def test_the_task_does_what_was_left_and_what_it_is_told(
    database: Database, journal: Journal
) -> None:
    await ended(database, journal, "run_left")
    compacted: asyncio.Queue[str] = asyncio.Queue()

    class Told(Compactor):
        async def compact(self, run_id: str) -> bool:
            done = await super().compact(run_id)
            compacted.put_nowait(run_id)
            return done

    compactor = Told(database)
    running = asyncio.create_task(compactor.run())
    assert await asyncio.wait_for(compacted.get(), 10) == "run_left"
    await ended(database, journal, "run_told")
    compactor.add("run_told")
    assert await asyncio.wait_for(compacted.get(), 10) == "run_told"
    for run_id in ("run_left", "run_told"):
        assert await event_rows(database, run_id) == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_begins_once_the_database_answers(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away just after the start does not bring the process down."""
    monkeypatch.setattr(module, "_RETRY", 0.0)
    await ended(database, journal, "run_left")
    away, compacted = [Unavailable("Not now", retry_after=1)] * 2, asyncio.Event()
    read = database.read

    async def refuses_twice(query: Any) -> Any:
        if away:
            raise away.pop()
        return await read(query)

    class Told(Compactor):
        async def compact(self, run_id: str) -> bool:
            compacted.set()
            return await super().compact(run_id)

    monkeypatch.setattr(database, "read", refuses_twice)
    running = asyncio.create_task(Told(database).run())
    await asyncio.wait_for(compacted.wait(), 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not away


async def test_the_journal_tells_the_compactor(database: Database, journal: Journal) -> None:
    await ended(database, journal, "run_a")
    assert journal.compactor._waiting.get_nowait() == "run_a"


@given(st.lists(st.integers(1, 900_000), min_size=1, max_size=30))
def test_steps_end_at_the_last_row_and_none_is_too_big(sizes: list[int]) -> None:
    rows = list(enumerate(sizes, start=1))
    steps = module._steps(rows)
    assert steps == sorted(set(steps))
    assert steps[-1] == len(rows)
    for first, last in zip([0, *steps], steps, strict=False):
        assert sum(sizes[first : last - 1]) < module._BYTES_A_STEP
