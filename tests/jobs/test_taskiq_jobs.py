"""Hints through a broker: away, restarted, emptied, poisoned; nodes that die; room that goes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import nats
import pytest
from structlog.testing import capture_logs
from taskiq import BrokerMessage
from tests.jobs.events import Taken, until
from tests.nats import NatsServer, start_nats
from tests.ports import free_port

from insula.jobs import jetstream, taskiq_jobs
from insula.jobs.taskiq_jobs import TaskiqJobs
from insula.jobs.transport import Transport, open_transport


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    server = start_nats()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no lost hint here."""
    monkeypatch.setattr(taskiq_jobs, "OFFER_WITHIN", 10.0)


@asynccontextmanager
async def node(server: NatsServer, name: str) -> AsyncIterator[Transport]:
    async with open_transport(server.url, name) as transport:
        await until(lambda: transport.signals.connected)
        yield transport


@asynccontextmanager
async def working(
    transport: Transport, take: Taken, room: Callable[[], bool] = lambda: True
) -> AsyncIterator[None]:
    task = asyncio.create_task(transport.jobs.work("runs", room, take))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_without_a_broker_an_offer_is_lost_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taskiq_jobs, "OFFER_WITHIN", 3600.0)
    async with open_transport(f"nats://127.0.0.1:{free_port()}", "one") as transport:
        taken = Taken()
        async with working(transport, taken), asyncio.timeout(20):
            for number in range(100):
                await transport.jobs.offer("runs", "app_1", f"run_{number}")
        assert transport.jobs.lost == 100
        assert not transport.jobs.connected


async def test_a_broker_that_does_not_answer_holds_nobody_up(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(own_server, "one") as one:
        await one.jobs.offer("runs", "app_1", "run_1")
        monkeypatch.setattr(taskiq_jobs, "OFFER_WITHIN", 0.05)
        own_server.pause()
        begun = asyncio.get_running_loop().time()
        for number in range(100):
            await one.jobs.offer("runs", "app_1", f"run_{number}")
        assert asyncio.get_running_loop().time() - begun < 4.0  # if each waited: 5 s
        assert one.jobs.lost == 100
        own_server.resume()


async def test_work_goes_on_after_a_restart_that_lost_every_hint(own_server: NatsServer) -> None:
    async with node(own_server, "one") as one, node(own_server, "one") as two:
        taken = Taken()
        await one.jobs.offer("runs", "app_1", "forgotten")
        async with working(two, taken):
            await taken.until(lambda: bool(taken.hints))
            own_server.kill()
            await until(lambda: not two.jobs.connected and not one.jobs.connected)
            own_server.start()
            await until(lambda: two.jobs.connected and one.jobs.connected)
            await one.jobs.offer("runs", "app_1", "remembered")
            await taken.until(lambda: "remembered" in taken.items)


async def test_a_stream_that_somebody_removed_is_made_again(nats_server: NatsServer) -> None:
    name = nats_server.installation()
    async with node(nats_server, name) as one:
        taken = Taken()
        async with working(one, taken):
            await one.jobs.offer("runs", "app_1", "run_1")
            await taken.until(lambda: bool(taken.hints))
            client = await nats.connect(nats_server.url)
            await client.jetstream().delete_stream(f"insula_{name}_jobs_runs")
            await client.close()
            await one.jobs.offer("runs", "app_1", "lost")
            await until(lambda: one.jobs.connected)
            await one.jobs.offer("runs", "app_1", "run_2")
            await taken.until(lambda: "run_2" in taken.items)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"task_id": 1}',
        b"[" * 3000,
        b'{"task_id":"a b","task_name":"runs","labels":{"owner":"o"},"args":[],"kwargs":{}}',
        b'{"task_id":"a","task_name":"runs","labels":{"owner":["o"]},"args":[],"kwargs":{}}',
        b'{"task_id":"a","task_name":"runs","labels":{},"args":[],"kwargs":{}}',
    ],
)
async def test_what_is_no_hint_is_logged_and_gone(nats_server: NatsServer, body: bytes) -> None:
    name = nats_server.installation()
    async with node(nats_server, name) as one:
        await one.jobs.offer("runs", "app_1", "before")
        client = await nats.connect(nats_server.url)
        await client.jetstream().publish(f"insula.{name}.jobs.runs.app_1", body)
        await one.jobs.offer("runs", "app_1", "after")
        taken = Taken()
        with capture_logs() as logs:
            async with working(one, taken):
                await taken.until(lambda: "after" in taken.items)
        assert taken.items == {"before", "after"}
        assert [log["event"] for log in logs if log["log_level"] != "info"] == ["job.unreadable"]
        state = (await client.jetstream().stream_info(f"insula_{name}_jobs_runs")).state
        await client.close()
        assert state.messages <= 1  # the last one's acknowledgement may be on its way


@pytest.mark.parametrize("status", ["404", "409", "503"])
async def test_what_claims_to_be_a_word_of_the_broker_is_no_hint(
    nats_server: NatsServer, status: str
) -> None:
    """It neither ends the fetching nor keeps it waiting."""
    name = nats_server.installation()
    async with node(nats_server, name) as one:
        await one.jobs.offer("runs", "app_1", "before")
        client = await nats.connect(nats_server.url)
        subject = f"insula.{name}.jobs.runs.app_1"
        await client.jetstream().publish(subject, b"", headers={"Status": status})
        await client.close()
        await one.jobs.offer("runs", "app_1", "after")
        taken = Taken()
        with capture_logs() as logs:
            async with working(one, taken):
                await taken.until(lambda: "after" in taken.items)
        assert [log["event"] for log in logs] == ["job.unreadable"]


async def test_what_a_dying_node_held_comes_to_another(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "ACKNOWLEDGED_WITHIN", 0.2)
    name = nats_server.installation()
    async with node(nats_server, name) as two:
        async with node(nats_server, name) as one:
            held = asyncio.Event()

            async def hold(_: str, __: str) -> None:
                held.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(one.jobs.work("runs", lambda: True, hold))
            await one.jobs.offer("runs", "app_1", "run_1")
            await held.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        taken = Taken()
        async with working(two, taken):
            await taken.until(lambda: bool(taken.hints))
    assert taken.hints == [("app_1", "run_1")]


async def test_what_arrives_where_room_went_goes_to_another(nats_server: NatsServer) -> None:
    name = nats_server.installation()
    asked = 0

    def once() -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    async with node(nats_server, name) as one, node(nats_server, name) as two:
        full, free = Taken(), Taken()
        async with working(one, full, room=once):
            await one.jobs.offer("runs", "app_1", "run_1")
            await until(lambda: asked >= 2)
            async with working(two, free):
                await free.until(lambda: bool(free.hints))
    assert full.hints == []
    assert free.hints == [("app_1", "run_1")]


async def test_a_broker_is_used_until_something_fails_and_another_is_opened() -> None:
    opened: list[FailingBroker] = []

    async def open_broker(kind: str) -> FailingBroker:
        assert kind == "runs"
        opened.append(FailingBroker())
        if len(opened) == 1:
            raise OSError
        return opened[-1]

    jobs = TaskiqJobs(open_broker)
    await jobs.offer("runs", "app_1", "run_1")
    assert jobs.lost == 1
    await until(lambda: len(opened) >= 3)
    assert opened[1].closed
    await jobs.close()
    assert opened[-1].closed or len(opened) > 3


class FailingBroker(taskiq_jobs.AsyncBroker):
    """A broker that starts well and fails at its first message."""

    closed = False

    async def kick(self, message: BrokerMessage) -> None:
        raise ConnectionResetError

    async def listen(self) -> AsyncIterator[bytes]:  # type: ignore[override]  # narrower
        yield b""

    async def shutdown(self) -> None:
        self.closed = True
