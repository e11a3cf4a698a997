import asyncio

import pytest
from tests.journal.rows import started

from insula.journal import subscription as module
from insula.journal.subscription import Subscription


def subscribe() -> tuple[Subscription, list[Subscription]]:
    closed: list[Subscription] = []
    return Subscription("run_a", closed.append), closed


async def test_what_is_put_is_heard_in_order_and_then_it_ends() -> None:
    heard, closed = subscribe()
    heard.put(1, [started(1)], 10)
    heard.put(3, [started(2), started(3)], 10)
    heard.end("ended")
    assert [(seq, len(events)) async for seq, events in heard] == [(1, 1), (3, 2)]
    assert heard.reason == "ended"
    assert closed == [heard]


async def test_a_reader_waits_for_what_comes() -> None:
    heard, _ = subscribe()
    reading = asyncio.create_task(anext(heard))
    await asyncio.sleep(0)
    assert not reading.done()
    heard.put(1, [started()], 10)
    assert (await reading)[0] == 1


async def test_a_waiting_reader_is_let_go() -> None:
    heard, _ = subscribe()
    reading = asyncio.create_task(anext(heard))
    await asyncio.sleep(0)
    heard.close()
    with pytest.raises(StopAsyncIteration):
        await reading
    assert heard.reason == "closed"


@pytest.mark.parametrize(("limit", "value"), [("EVENTS_MAX", 10), ("BYTES_MAX", 100)])
async def test_a_slow_reader_is_closed_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(module, limit, value)
    heard, closed = subscribe()
    for seq in range(1, 11):
        heard.put(seq, [started()], 10)
    assert heard.reason is None
    heard.put(11, [started()], 10)
    assert heard.reason == "slow"
    assert closed == [heard]
    assert [seq async for seq, _ in heard] == []


async def test_a_reader_that_keeps_up_is_never_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 3)
    monkeypatch.setattr(module, "BYTES_MAX", 30)
    heard, _ = subscribe()
    for seq in range(100):
        heard.put(seq, [started()], 10)
        assert (await anext(heard))[0] == seq
    assert heard.reason is None


async def test_events_and_bytes_have_a_bound_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 8)
    monkeypatch.setattr(module, "BYTES_MAX", 80)
    heard, _ = subscribe()
    for seq in (2, 4, 6):  # many events, few bytes
        heard.put(seq, [started(), started()], 1)
    for seq in (7, 8):  # the other way round
        heard.put(seq, [started()], 20)
    assert heard.reason is None
    assert [(await anext(heard))[0] for _ in range(5)] == [2, 4, 6, 7, 8]


@pytest.mark.parametrize("limit", ["EVENTS_MAX", "BYTES_MAX"])
async def test_one_batch_that_is_over_the_bounds_is_heard_by_who_keeps_up(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 4)
    heard, _ = subscribe()
    for seq in (2, 4):
        heard.put(seq, [started(1), started(2)], 10)
        assert await anext(heard) == (seq, [started(1), started(2)])
    for seq in (6, 7, 8, 9):
        heard.put(seq, [started(1), started(2)], 10)
    assert [(await anext(heard))[0] for _ in range(4)] == [6, 7, 8, 9]
    for seq in (10, 11, 12, 13):
        heard.put(seq, [started(1), started(2)], 10)
    assert heard.reason is None
    heard.put(14, [started()], 10)
    assert heard.reason == "slow"
