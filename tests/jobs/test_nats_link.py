"""The connection to a broker: away, back, silent, refused; and what it leaves behind: nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs
from tests.jobs.events import Heard, open_sockets, until
from tests.listening import listening
from tests.nats import NatsServer, start_nats
from tests.ports import free_port

from insula.jobs import nats_link
from insula.jobs.nats_link import NatsLink
from insula.jobs.nats_signals import NatsSignals
from insula.jobs.signals import NoAnswer
from insula.jobs.transport import open_transport

LONG = 10.0


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    server = start_nats()
    yield server
    server.close()


@asynccontextmanager
async def signals_at(*urls: str, prefix: str = "insula.one") -> AsyncIterator[NatsSignals]:
    link = NatsLink(urls, prefix)
    signals = NatsSignals(link, prefix)
    link.start()
    try:
        yield signals
    finally:
        await signals.close()
        await link.close()


async def echo(body: bytes) -> bytes:
    return body


async def test_a_broker_that_comes_later_is_found_and_all_interests_stand(
    own_server: NatsServer,
) -> None:
    own_server.stop()
    async with signals_at(own_server.url) as one, signals_at(own_server.url) as two:
        heard = Heard()
        await two.listen("run.one", heard)
        await two.answer("echo", echo)
        one.publish("run.one", b"lost")
        with pytest.raises(NoAnswer, match="away"):
            await one.ask("echo", b"", LONG)
        assert not one.connected
        assert one.lost == 1
        own_server.start()
        await until(lambda: one.connected and two.connected)
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]
        assert await one.ask("echo", b"a", LONG) == b"a"


async def test_a_broker_that_went_and_came_back_is_told_of_once(own_server: NatsServer) -> None:
    async with signals_at(own_server.url) as one, signals_at(own_server.url) as two:
        await until(lambda: one.connected and two.connected)
        heard, returned = Heard(), asyncio.Event()
        ended = Heard()
        await two.listen("run.one", heard)
        end = await two.listen("run.one", ended)
        two.on_return(returned.set)
        with capture_logs() as logs:
            own_server.kill()
            await until(lambda: not one.connected and not two.connected)
            end()
            one.publish("run.one", b"lost")
            own_server.start()
            await asyncio.wait_for(returned.wait(), 20)
            await until(lambda: one.connected)
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]
        assert ended.bodies == []
        events = [log["event"] for log in logs]
        assert sorted(events) == ["broker.away"] * 2 + ["broker.back"] * 2


async def test_a_question_in_flight_ends_with_the_connection(own_server: NatsServer) -> None:
    async with signals_at(own_server.url) as one:
        await until(lambda: one.connected)
        asked = asyncio.Event()

        async def silent(_: bytes) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        await one.answer("silent", silent)
        asking = asyncio.create_task(one.ask("silent", b"", 3600))
        await asked.wait()
        own_server.kill()
        with pytest.raises(NoAnswer):
            await asyncio.wait_for(asking, 20)


async def test_a_broker_that_falls_silent_is_noticed(
    own_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_link, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(nats_link, "SILENT_WITHIN", 10.0)
    async with signals_at(own_server.url) as one:
        await until(lambda: one.connected)
        heard = Heard()
        await one.listen("run.one", heard)
        own_server.pause()
        for _ in range(2_000):  # more than the sockets hold: the library waits for room in them
            one.publish("run.one", b"x" * 4096)
        monkeypatch.setattr(nats_link, "SILENT_WITHIN", 0.2)
        await until(lambda: not one.connected)
        monkeypatch.setattr(nats_link, "SILENT_WITHIN", 10.0)  # a busy machine is not silent
        own_server.resume()
        await until(lambda: one.connected)
        heard.bodies.clear()
        one.publish("run.one", b"heard")
        await until(lambda: b"heard" in heard.bodies)


async def test_the_next_of_several_brokers_is_taken(own_server: NatsServer) -> None:
    nobody = f"nats://127.0.0.1:{free_port()}"
    async with signals_at(nobody, own_server.url, nobody) as one:
        await until(lambda: one.connected)
        await one.answer("echo", echo)
        assert await one.ask("echo", b"a", LONG) == b"a"


async def test_credentials_are_decoded_and_never_shown() -> None:
    server = start_nats("--user", "ada", "--pass", "s@cret:5")
    try:
        right = server.url.replace("//", "//ada:s%40cret%3A5@")
        wrong = server.url.replace("//", "//ada:s%40crets@")
        with capture_logs() as logs:
            async with signals_at(wrong) as one:
                await until(lambda: any(log["event"] == "broker.away" for log in logs))
                assert not one.connected
            async with signals_at(right) as one:
                await until(lambda: one.connected)
        assert "cret" not in str(logs)
    finally:
        server.close()


async def test_what_is_no_broker_is_away_and_harms_nothing() -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {not json\r\n" + b"\x00" * 100_000)
        writer.close()

    async with listening(babble) as port:
        with capture_logs() as logs:
            async with signals_at(f"nats://127.0.0.1:{port}") as one:
                await until(lambda: bool(logs))
                assert not one.connected
    assert {log["event"] for log in logs} == {"broker.away"}


async def test_installations_that_share_a_broker_do_not_hear_each_other(
    nats_server: NatsServer,
) -> None:
    first, second = (f"insula.{nats_server.installation()}" for _ in range(2))
    async with (
        signals_at(nats_server.url, prefix=first) as one,
        signals_at(nats_server.url, prefix=second) as two,
    ):
        await until(lambda: one.connected and two.connected)
        heard, own = Heard(), Heard()
        await two.listen("run.one", heard)
        await one.listen("run.one", own)
        await two.answer("echo", echo)
        one.publish("run.one", b"own")
        assert await own.first(1) == [b"own"]
        with pytest.raises(NoAnswer):
            await one.ask("echo", b"", LONG)
        assert heard.bodies == []


async def test_nothing_is_left_behind(own_server: NatsServer) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    for _ in range(3):
        async with open_transport(own_server.url, "one") as transport:
            heard = Heard()
            await until(lambda t=transport: t.signals.connected)
            await transport.signals.listen("run.one", heard)
            await transport.jobs.offer("runs", "app_1", "run_1")
            own_server.kill()
            await until(lambda t=transport: not t.signals.connected)
            own_server.start()
            await until(lambda t=transport: t.signals.connected)
    async with open_transport(f"nats://127.0.0.1:{free_port()}", "one") as transport:
        await transport.jobs.offer("runs", "app_1", "run_1")
        await transport.signals.listen("run.one", heard)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert open_sockets() == sockets
