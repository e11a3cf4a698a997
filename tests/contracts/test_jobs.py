"""What hints of waiting work do between two nodes, whatever carries them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from structlog.testing import capture_logs
from tests.jobs.events import Taken, until
from tests.nats import NatsServer
from tests.redis_server import RedisServer, redis_server, redis_session

from insula.jobs import taskiq_jobs
from insula.jobs.jobs import Jobs
from insula.jobs.memory_jobs import MemoryJobs, SharedHints
from insula.jobs.memory_signals import Exchange, MemorySignals
from insula.jobs.pulled_jobs import PulledJobs
from insula.jobs.transport import open_transport

__all__ = ["redis_server", "redis_session"]

Pair = tuple[Jobs, Jobs]


async def pulled(stack: AsyncExitStack, exchange: Exchange) -> Jobs:
    signals = MemorySignals(exchange)
    stack.push_async_callback(signals.close)
    jobs = PulledJobs(signals)
    await jobs.open()
    stack.push_async_callback(jobs.close)
    return jobs


@pytest.fixture(params=["memory", "pulled", "nats", "postgres", "redis"])
async def pair(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    monkeypatch.setattr(taskiq_jobs, "OFFER_WITHIN", 10.0)  # a busy machine is no lost hint here
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            shared = SharedHints()
            nodes = (MemoryJobs(shared), MemoryJobs(shared))
            for node in nodes:
                stack.push_async_callback(node.close)
            yield nodes
        elif request.param == "pulled":
            exchange = Exchange()
            yield await pulled(stack, exchange), await pulled(stack, exchange)
        else:
            if request.param != "postgres":
                server: NatsServer | RedisServer
                server = request.getfixturevalue(f"{request.param}_server")
                url, name = server.url, server.installation()
            else:
                url, name = request.getfixturevalue("tables_url"), "one"
            one = await stack.enter_async_context(open_transport(url, name))
            two = await stack.enter_async_context(open_transport(url, name))
            await until(lambda: one.signals.connected and two.signals.connected)
            yield one.jobs, two.jobs


@asynccontextmanager
async def working(
    jobs: Jobs,
    take: Callable[[str, str], "asyncio.Future[None]"] | Taken,
    room: Callable[[], bool] = lambda: True,
    kind: str = "runs",
) -> AsyncIterator[None]:
    task = asyncio.create_task(jobs.work(kind, room, take))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_offered_is_taken_one_after_another(pair: Pair) -> None:
    taken = Taken()
    for number in range(20):
        await pair[0].offer("runs", "app_1", f"run_{number}")
    async with working(pair[1], taken):
        await taken.until(lambda: len(taken.hints) == 20)
    assert taken.hints == [("app_1", f"run_{number}") for number in range(20)]
    assert taken.most_at_once == 1
    assert pair[0].connected
    assert (pair[0].lost, pair[1].lost) == (0, 0)


async def test_what_is_offered_later_is_taken_at_once(pair: Pair) -> None:
    taken = Taken()
    async with working(pair[1], taken):
        for number in range(5):
            await pair[0].offer("runs", "app_1", f"run_{number}")
            await taken.until(lambda n=number: len(taken.hints) == n + 1)


async def test_two_nodes_share_the_work_and_none_is_done_twice(pair: Pair) -> None:
    taken = Taken()
    async with working(pair[0], taken), working(pair[1], taken):
        for number in range(100):
            await pair[number % 2].offer("runs", "app_1", f"run_{number}")
        await taken.until(lambda: len(taken.hints) >= 100)
    assert len(taken.hints) == 100
    assert taken.items == {f"run_{number}" for number in range(100)}


async def test_a_kind_is_taken_by_who_works_on_it(pair: Pair) -> None:
    runs, erasures = Taken(), Taken()
    await pair[0].offer("erasures", "app_1", "one")
    await pair[0].offer("runs", "app_1", "two")
    async with working(pair[1], runs), working(pair[0], erasures, kind="erasures"):
        await runs.until(lambda: bool(runs.hints))
        await erasures.until(lambda: bool(erasures.hints))
    assert (runs.items, erasures.items) == ({"two"}, {"one"})


async def test_nothing_is_fetched_without_room(pair: Pair) -> None:
    full, free = Taken(), Taken()
    async with working(pair[0], full, room=lambda: False), working(pair[1], free):
        for number in range(20):
            await pair[0].offer("runs", "app_1", f"run_{number}")
        await free.until(lambda: len(free.items) == 20)
    assert full.hints == []


async def test_fetching_goes_on_when_there_is_room_again(pair: Pair) -> None:
    room = False
    taken = Taken()
    async with working(pair[1], taken, room=lambda: room):
        await pair[0].offer("runs", "app_1", "run_1")
        pair[1].wake("runs")
        await asyncio.sleep(0)
        assert taken.hints == []
        room = True
        pair[1].wake("runs")
        await taken.until(lambda: bool(taken.hints))


async def test_one_that_fails_does_not_keep_others_from_being_taken(pair: Pair) -> None:
    taken = Taken()

    async def take(owner: str, item: str) -> None:
        if item == "bad":
            raise LookupError(item)
        await taken(owner, item)

    with capture_logs() as logs:
        async with working(pair[1], take):
            await pair[0].offer("runs", "app_1", "bad")
            await pair[0].offer("runs", "app_1", "good")
            await taken.until(lambda: bool(taken.hints))
    assert taken.items == {"good"}
    assert "job.take_failed" in {log["event"] for log in logs}


async def test_work_can_be_cancelled_while_it_takes(pair: Pair) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def take(_: str, __: str) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with working(pair[1], take):
        await pair[0].offer("runs", "app_1", "run_1")
        await began.wait()
    assert ended.is_set()


@pytest.mark.parametrize("word", ["", "a b", "a.b", "*", ">", "a\r\nb", "x" * 201])
async def test_what_is_no_word_is_not_offered(pair: Pair, word: str) -> None:
    await pair[0].offer("runs", word, "item")
    await pair[0].offer("runs", "owner", word)
    assert pair[0].lost == 2


async def arrived(jobs: Jobs, owner: str, item: str) -> None:
    """Offer a hint until one is not given up: a busy machine may be too slow for some."""
    async with asyncio.timeout(20):
        while True:
            lost = jobs.lost
            await jobs.offer("runs", owner, item)
            if jobs.lost == lost:
                return
            await asyncio.sleep(0.1)


async def test_one_owner_does_not_starve_another(pair: Pair) -> None:
    taken = Taken()
    for first in range(0, 5_000, 250):
        items = [f"run_{number}" for number in range(first, first + 250)]
        await asyncio.gather(*(pair[0].offer("runs", "greedy", item) for item in items))
    await arrived(pair[0], "modest", "only")
    async with working(pair[1], taken):
        await taken.until(lambda: "only" in taken.items)
    assert len(taken.hints) <= 1_001


async def test_nothing_is_taken_or_offered_once_closed(pair: Pair) -> None:
    await pair[0].close()
    await pair[0].offer("runs", "app_1", "run_1")
    assert pair[0].lost == 1
    assert not pair[0].connected
