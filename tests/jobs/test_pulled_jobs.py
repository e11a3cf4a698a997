"""Hints that wait where they were offered: nodes cut off, gone, full, and those who lie."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from structlog.testing import capture_logs
from tests.jobs.events import Taken, until

from insula.jobs import pulled_jobs
from insula.jobs.memory_signals import Exchange, MemorySignals
from insula.jobs.pulled_jobs import PulledJobs


class Nodes:
    """Nodes that share an exchange."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.exchange = Exchange()

    async def open(self) -> tuple[PulledJobs, MemorySignals]:
        signals = MemorySignals(self.exchange)
        self._stack.push_async_callback(signals.close)
        jobs = PulledJobs(signals)
        await jobs.open()
        self._stack.push_async_callback(jobs.close)
        return jobs, signals


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(stack)


@asynccontextmanager
async def working(
    jobs: PulledJobs, take: Taken, room: Callable[[], bool] = lambda: True
) -> AsyncIterator[None]:
    task = asyncio.create_task(jobs.work("runs", room, take))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_without_a_broker_an_offer_is_lost_at_once(nodes: Nodes) -> None:
    one, signals = await nodes.open()
    signals.cut()
    await one.offer("runs", "app_1", "run_1")
    assert one.lost == 1
    assert not one.connected


async def test_what_waited_while_a_node_was_cut_off_is_told_of_again(nodes: Nodes) -> None:
    one, signals = await nodes.open()
    two, _ = await nodes.open()
    taken = Taken()
    await one.offer("runs", "app_1", "run_1")
    signals.cut()
    async with working(two, taken):
        await two.offer("runs", "app_1", "own")
        await taken.until(lambda: bool(taken.hints))
        signals.mend()
        await taken.until(lambda: len(taken.hints) == 2)
    assert taken.items == {"run_1", "own"}


async def test_a_node_that_is_gone_keeps_nobody(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulled_jobs, "ASKED_WITHIN", 3600.0)
    one, signals = await nodes.open()
    two, _ = await nodes.open()
    taken = Taken()
    room = False
    async with working(two, taken, room=lambda: room):
        await one.offer("runs", "app_1", "gone")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await signals.close()
        await two.offer("runs", "app_1", "here")
        room = True
        two.wake("runs")
        await taken.until(lambda: bool(taken.hints))
    assert taken.items == {"here"}


async def test_what_arrives_where_room_went_goes_to_another(nodes: Nodes) -> None:
    one, _ = await nodes.open()
    two, _ = await nodes.open()
    three, _ = await nodes.open()
    asked = 0

    def once() -> bool:
        nonlocal asked
        asked += 1
        return asked == 2  # when it begins, and after the hint was told of

    full, free = Taken(), Taken()
    async with working(two, full, room=once):
        await asyncio.sleep(0)
        await one.offer("runs", "app_1", "run_1")
        await until(lambda: asked >= 3)
        async with working(three, free):
            await free.until(lambda: bool(free.hints))
    assert full.hints == []
    assert free.hints == [("app_1", "run_1")]


async def test_nodes_take_turns_in_giving(nodes: Nodes) -> None:
    givers = [(await nodes.open())[0] for _ in range(3)]
    worker, _ = await nodes.open()
    for place, giver in enumerate(givers):
        for number in range(4):
            await giver.offer("runs", "app_1", f"run_{place}_{number}")
    taken = Taken()
    async with working(worker, taken):
        await taken.until(lambda: len(taken.hints) == 12)
    for turn in range(4):
        part = taken.hints[3 * turn : 3 * turn + 3]
        assert {item.split("_")[1] for _, item in part} == {"0", "1", "2"}


@pytest.mark.parametrize("lie", [b"one", b"a b c", b"\xff \xff", b"x" * 500 + b" y", b"a  b"])
async def test_an_answer_that_is_no_hint_is_logged_and_dropped(nodes: Nodes, lie: bytes) -> None:
    one, _ = await nodes.open()
    liar = MemorySignals(nodes.exchange)

    async def answer(_: bytes) -> bytes:
        return lie

    await liar.answer("hints.liar", answer)
    taken = Taken()
    with capture_logs() as logs:
        async with working(one, taken):
            await asyncio.sleep(0)
            liar.publish("hints.offered", b"runs liar")
            await until(lambda: bool(logs))
    await liar.close()
    assert [log["event"] for log in logs] == ["job.unreadable"]
    assert taken.hints == []


async def test_who_claims_to_be_many_nodes_fills_nothing(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulled_jobs, "_NODES_MAX", 10)
    one, signals = await nodes.open()
    other, _ = await nodes.open()
    taken = Taken()
    async with working(one, taken, room=lambda: False):
        await asyncio.sleep(0)
        for number in range(100):
            signals.publish("hints.offered", b"runs liar_%d" % number)
        for body in (b"", b"runs", b"other liar", b"runs a b", b"\xff" * 1000):
            signals.publish("hints.offered", body)
        await other.offer("runs", "app_1", "run_1")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(one._lanes["runs"].untried) == 10
        assert set(one._lanes) == {"runs"}


async def silent(_: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def test_nobody_waits_for_names_that_gave_nothing(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulled_jobs, "ASKED_WITHIN", 3600.0)
    one, signals = await nodes.open()
    other, _ = await nodes.open()
    liar = MemorySignals(nodes.exchange)
    taken = Taken()
    async with working(one, taken):
        await other.offer("runs", "app_1", "first")
        await taken.until(lambda: bool(taken.hints))
        for number in range(20):
            await liar.answer(f"hints.liar_{number}", silent)
            signals.publish("hints.offered", b"runs liar_%d" % number)
        await asyncio.sleep(0)
        await other.offer("runs", "app_1", "known")
        await one.offer("runs", "app_1", "own")
        await taken.until(lambda: len(taken.hints) == 3)
    await liar.close()
    assert taken.items == {"first", "known", "own"}


async def test_a_name_that_was_forgotten_among_many_is_asked_for_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulled_jobs, "_NODES_MAX", 10)
    one, signals = await nodes.open()
    other, _ = await nodes.open()
    taken = Taken()
    room = False
    async with working(one, taken, room=lambda: room):
        await asyncio.sleep(0)
        await other.offer("runs", "app_1", "run_1")
        for number in range(100):
            signals.publish("hints.offered", b"runs liar_%d" % number)
        await until(lambda: one._lanes["runs"].missed)
        room = True
        one.wake("runs")
        await taken.until(lambda: bool(taken.hints))


async def test_what_a_trial_found_goes_to_another_where_room_went(nodes: Nodes) -> None:
    full, _ = await nodes.open()
    free, _ = await nodes.open()
    room, asked, taken = True, asyncio.Event(), Taken()

    async def give(_: bytes) -> bytes:
        nonlocal room
        room = False
        asked.set()
        return b"app_1 run_1"

    giver = MemorySignals(nodes.exchange)
    await giver.answer("hints.giver", give)
    async with working(full, Taken(), room=lambda: room):
        await asyncio.sleep(0)
        giver.publish("hints.offered", b"runs giver")
        await asked.wait()
        async with working(free, taken):
            await taken.until(lambda: bool(taken.hints))
    await giver.close()
    assert taken.hints == [("app_1", "run_1")]
