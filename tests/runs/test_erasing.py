"""How much is erased at once: it follows what a batch costs, and gives way to live runs."""

from asyncio import CancelledError
from unittest.mock import AsyncMock, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection
from tests.runs.platform import Platform, code

from insula.kit.clock import now_ms
from insula.runs import erasing
from insula.runs.erasing import Pace, Took, Traffic, erase_due, remove_old_keys
from insula.storage.dialect import driver
from insula.web.idempotency import LIFE_MS

DATABASES = ("sqlite", "postgres")


@pytest.fixture(autouse=True)
def only_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing erased but by the test."""
    monkeypatch.setattr(erasing, "ERASE_SECONDS", 3600)


@given(st.lists(st.floats(0, 10), max_size=50))
def test_a_batch_stays_within_bounds(took: list[float]) -> None:
    pace = Pace()
    for held in took:
        assert 20 <= pace.limit(busy=True) <= 400
        before = pace.size
        assert pace.learn(Took(held / 2, held), busy=True) == held * 3
        assert before / 2 <= pace.size + 1
        assert pace.size <= before * 1.5 + 1


def test_it_settles_where_a_batch_is_a_little_work() -> None:
    pace = Pace()
    for each in (0.00001, 0.00002, 0.000005):  # seconds a run
        for _ in range(30):
            work = 0.0001 + pace.size * each
            pace.learn(Took(work, work + 0.05), busy=True)
        assert 0.0001 + pace.size * each == pytest.approx(pace.work, rel=0.1)


def test_with_nothing_live_it_does_not_rest() -> None:
    pace = Pace()
    assert pace.limit(busy=False) == 400
    assert pace.learn(Took(1.0, 1.0), busy=False) == 0
    assert pace.size == 100


async def test_all_that_is_due_goes_in_batches(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    for _ in range(7):
        await platform.acme.run(flow)
    await platform.change("UPDATE runs SET retention_due_at = 1")
    monkeypatch.setattr(erasing, "_LARGEST", 3)
    assert await erase_due(platform.services) == 7
    left = await platform.rows("SELECT 1 FROM runs WHERE erased_at IS NULL")
    assert (left, await platform.rows("SELECT 1 FROM run_data")) == ([], [])


async def test_beside_live_runs_it_rests(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    for _ in range(7):
        await platform.acme.run(flow)
    await platform.change("UPDATE runs SET retention_due_at = 1")
    slow = await platform.acme.make(code("a", "wait(g)"))
    await platform.acme.run(slow, background=True)
    await platform.reached("g")
    rested: list[float] = []

    class Watched(Pace):
        def learn(self, took: Took, *, busy: bool) -> float:
            rested.append(super().learn(took, busy=busy))
            return 0.0

    assert await erase_due(platform.services, Watched(size=5)) == 7
    assert rested
    assert all(seconds > 0 for seconds in rested)
    platform.gate("g").opened.set()
    await platform.idle()


async def keys(platform: Platform, count: int, made: int) -> None:
    """Put records of idempotency keys there."""

    def unit(connection: Connection) -> None:
        for number in range(count):
            driver(connection).execute(
                "INSERT INTO idempotency (app_id, method, path, key, body_hash, created_at)"
                " VALUES (?, 'POST', '/runs', ?, ?, ?)",
                (platform.acme.id, f"{made}-{number}", b"", made),
            )

    await platform.services.database.write(unit)


async def test_old_keys_go_in_batches_and_nobody_writes_for_none(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = platform.services
    fresh = now_ms() - LIFE_MS + 600_000
    await keys(platform, 3, fresh)
    aside = Mock(wraps=services.database.background)
    monkeypatch.setattr(services.database, "background", aside)
    assert await remove_old_keys(services) == 0
    assert aside.call_count == 0
    await keys(platform, 2_500, 1)
    assert await remove_old_keys(services) == 2_500
    assert aside.call_count == 7  # of 400, the last one not full
    left = await platform.rows("SELECT created_at FROM idempotency")
    assert [made for (made,) in left] == [fresh] * 3


async def test_a_node_alone_is_busy_with_its_own_runs_only(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Mock()
    monkeypatch.setattr(erasing.repository, "any_since", elsewhere)
    assert not await Traffic(platform.services).is_busy()
    assert elsewhere.call_count == 0


async def test_an_error_that_nobody_expects_ends_nothing_else(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a page of the database that cannot be read."""
    monkeypatch.setattr(erasing, "ERASE_SECONDS", 0)
    tried = [RuntimeError("a bad page"), RuntimeError("a bad page"), CancelledError()]
    work = AsyncMock(side_effect=tried)
    with pytest.raises(CancelledError):
        await erasing._repeat(work)
    assert work.await_count == len(tried)
