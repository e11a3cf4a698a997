"""Signals over PostgreSQL: its session away, back, silent, ended; poolers; and nothing left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import Mock
from urllib.parse import urlsplit, urlunsplit

import pytest
from structlog.testing import capture_logs
from tests.jobs.events import Heard, open_sockets, until
from tests.listening import listening
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxied

from insula.jobs import pauses, postgres_wire, wire_link
from insula.jobs.signals import NoAnswer, Signals
from insula.jobs.transport import open_transport

LONG = 10.0


def at_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"insula@127.0.0.1:{port}"))


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[Proxy]:
    async with proxied(postgres_server.port) as opened:
        yield opened


@pytest.fixture
def url(postgres_url: str, proxy: Proxy) -> str:
    """A database, through the proxy."""
    return at_port(postgres_url, proxy.port)


@asynccontextmanager
async def signals_at(url: str, name: str = "one") -> AsyncIterator[Signals]:
    async with open_transport(url, name) as transport:
        yield transport.signals


async def echo(body: bytes) -> bytes:
    return body


async def test_a_server_that_comes_later_is_found_and_all_interests_stand(
    url: str, proxy: Proxy
) -> None:
    await proxy.refuse()
    async with signals_at(url) as one, signals_at(url) as two:
        heard = Heard()
        await two.listen("run.one", heard)
        await two.answer("echo", echo)
        one.publish("run.one", b"lost")
        with pytest.raises(NoAnswer, match="away"):
            await one.ask("echo", b"", LONG)
        assert not one.connected
        assert one.lost == 1
        await proxy.listen()
        await until(lambda: one.connected and two.connected)
        assert one.trouble is None
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]
        assert await one.ask("echo", b"a", LONG) == b"a"


async def test_a_server_that_went_and_came_back_is_told_of_once(url: str, proxy: Proxy) -> None:
    async with signals_at(url) as one, signals_at(url) as two:
        await until(lambda: one.connected and two.connected)
        heard, returned, ended = Heard(), asyncio.Event(), Heard()
        await two.listen("run.one", heard)
        end = await two.listen("run.one", ended)
        two.on_return(returned.set)
        with capture_logs() as logs:
            await proxy.refuse()
            await until(lambda: not one.connected and not two.connected)
            end()
            one.publish("run.one", b"lost")
            await proxy.listen()
            await asyncio.wait_for(returned.wait(), 20)
            await until(lambda: one.connected)
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]
        assert ended.bodies == []
        events = [log["event"] for log in logs]
        assert sorted(events) == ["broker.away"] * 2 + ["broker.back"] * 2


async def test_a_server_that_falls_silent_is_noticed(
    url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_link, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(wire_link, "SILENT_WITHIN", 10.0)
    async with signals_at(url) as one:
        await until(lambda: one.connected)
        monkeypatch.setattr(wire_link, "SILENT_WITHIN", 0.3)
        proxy.stall()
        for number in range(3_000):  # more than sockets hold: the rest waits for room in them
            one.publish("run.one", b"%d" % number + b"x" * 4096)
        assert one.lost >= 900  # and no more than 8 MiB of it wait here
        await until(lambda: not one.connected)
        lost = one.lost
        assert lost == 3_000
        monkeypatch.setattr(wire_link, "SILENT_WITHIN", 10.0)  # a busy machine is not silent
        proxy.cut()
        proxy.go_on()
        await until(lambda: one.connected)
        heard = Heard()
        await one.listen("run.one", heard)
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]


async def test_a_question_in_flight_ends_with_the_session(
    url: str, postgres_server: PostgresServer
) -> None:
    async with signals_at(url) as one:
        await until(lambda: one.connected)
        asked = asyncio.Event()

        async def silent(_: bytes) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        await one.answer("silent", silent)
        asking = asyncio.create_task(one.ask("silent", b"", 3600))
        await asked.wait()
        end_sessions(postgres_server, url)
        with pytest.raises(NoAnswer, match="went away"):
            await asyncio.wait_for(asking, 20)
        await until(lambda: one.connected)


def end_sessions(server: PostgresServer, url: str) -> None:
    """End the sessions of signals, as an administrator may."""
    name = url.rpartition("/")[2]
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND application_name = 'insula signals'"
    )


async def test_where_somebody_has_died_it_is_said_at_once(url: str) -> None:
    async with signals_at(url) as one:
        await until(lambda: one.connected)
        async with signals_at(url) as two:
            await until(lambda: two.connected)
            await two.answer("echo", echo)
            assert await one.ask("echo", b"a", LONG) == b"a"
        with pytest.raises(NoAnswer, match="nobody answers"):
            await one.ask("echo", b"a", 3600)


async def test_installations_of_one_database_do_not_hear_each_other(url: str) -> None:
    async with signals_at(url, "one") as one, signals_at(url, "two") as two:
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


async def test_what_anyone_tells_there_harms_nothing(
    url: str, postgres_server: PostgresServer
) -> None:
    async with signals_at(url) as one:
        await until(lambda: one.connected)
        heard = Heard()
        await one.listen("run.one", heard)
        await one.answer("echo", echo)
        name = url.rpartition("/")[2]
        listened = postgres_server.execute(
            "SELECT DISTINCT unnest(regexp_matches(query, 'insula_[a-z]_[0-9a-f]{32}', 'g')) "
            f"FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE 'LISTEN%'",
            name,
        )
        assert listened
        payloads = ["", "x", "1.0.1t:x", "2.0.1b:!", "3.0.1t:insula_a_0 1", "4.0.1t:1+forged"]
        with capture_logs() as logs:
            for (channel,) in listened:
                for payload in payloads:
                    postgres_server.execute(f"NOTIFY {channel}, '{payload}'", name)
            assert await one.ask("echo", b"a", LONG) == b"a"
        assert one.connected
        # One from the parts, one from what they made; the others are counted.
        assert [log["event"] for log in logs] == ["signal.unreadable"] * 2


async def test_what_was_said_last_is_sent_before_it_closes(url: str) -> None:
    async with signals_at(url) as two:
        await until(lambda: two.connected)
        heard = Heard()
        await two.listen("sweep", heard)
        async with signals_at(url) as one:
            await until(lambda: one.connected)
            one.publish("sweep", b"last")
        assert await heard.first(1) == [b"last"]


async def test_credentials_are_never_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "PAUSES", (0.01, 0.01))
    wrong = url.replace("insula@", "nobody:s%40cret@")
    with capture_logs() as logs:
        async with signals_at(wrong) as one:
            await until(lambda: any(log["event"] == "broker.away" for log in logs))
            assert not one.connected
            assert "cret" not in str(one.trouble)
    assert "cret" not in str(logs)


@asynccontextmanager
async def pooler(target: int, passes_on: bool) -> AsyncIterator[int]:
    """Play a pooler: it makes up the numbers of sessions and, where it pools transactions, has
    nobody to pass on to what is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)

        async def forth() -> None:
            while data := await reader.read(65536):
                back.write(data)
            back.transport.abort()

        async def answer() -> None:
            while head := await there.readexactly(5):
                body = await there.readexactly(int.from_bytes(head[1:], "big") - 4)
                if head[:1] == b"K":
                    body = (7).to_bytes(4, "big") + body[4:]
                if head[:1] != b"A" or passes_on:
                    writer.write(head + body)

        tasks = [asyncio.create_task(each()) for each in (forth, answer)]
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in (writer, back):
                one.transport.abort()

    async with listening(serve) as port:
        yield port


@pytest.mark.parametrize("passes_on", [True, False])
async def test_a_pooler_that_keeps_back_what_is_told_is_named(
    postgres_url: str,
    postgres_server: PostgresServer,
    passes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not passes_on:
        monkeypatch.setattr(postgres_wire, "HEARD_WITHIN", 0.3)
    async with pooler(postgres_server.port, passes_on) as port:
        url = at_port(postgres_url, port) + "?sslmode=disable&gssencmode=disable"
        with capture_logs() as logs:
            async with signals_at(url) as one:
                await until(lambda: one.connected or one.trouble != "not connected yet")
                assert one.connected is passes_on
                assert passes_on or "pools transactions" in str(one.trouble)
        assert passes_on or "pools transactions" in logs[0]["reason"]


async def test_a_url_that_cannot_be_used_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="postgresql://") as raised:
        async with open_transport("postgresql://ada:5ecret@:x:y/", "one"):
            pass
    assert "5ecret" not in str(raised.value)


async def test_nothing_is_left_behind(url: str, proxy: Proxy) -> None:
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    for _ in range(3):
        async with open_transport(url, "one") as transport:
            heard = Heard()
            await until(lambda t=transport: t.signals.connected)
            await transport.signals.listen("run.one", heard)
            await transport.jobs.offer("runs", "app_1", "run_1")
            await proxy.refuse()
            await until(lambda t=transport: not t.signals.connected)
            await proxy.listen()
            await until(lambda t=transport: t.signals.connected)
    nobody = at_port(url, free_port())
    async with open_transport(nobody, "one") as transport:
        await transport.jobs.offer("runs", "app_1", "run_1")
        await transport.signals.listen("run.one", heard)
    await until(lambda: asyncio.all_tasks() <= tasks)
    await until(lambda: len(open_sockets()) <= len(sockets))


async def test_a_node_that_stands_still_does_not_keep_the_server_from_forgetting(
    postgres_url: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_wire, "_SESSION", postgres_wire._SESSION.replace("60000", "500"))
    paused = await postgres_wire.open_wire(postgres_url, lambda *_: None, lambda: None)
    number = await paused.pid()
    await paused.stand(["insula_m_paused"], [])
    paused._silence()  # it takes nothing more from its socket
    name = postgres_url.rpartition("/")[2]
    tell = (
        "SELECT pg_notify('insula_m_paused', repeat('x', 7000) || n) FROM generate_series(1, 400) n"
    )

    async def ended() -> bool:
        await asyncio.to_thread(postgres_server.execute, tell, name)
        query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {number}"
        return await asyncio.to_thread(postgres_server.execute, query) == [(0,)]

    async with asyncio.timeout(30):
        while not await ended():  # noqa: ASYNC110  # the server's own time
            await asyncio.sleep(0.1)
    await paused.close()


async def test_a_socket_that_is_gone_is_let_alone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another connection's by then."""
    wire = await postgres_wire.open_wire(postgres_url, lambda *_: None, lambda: None)
    wire._break("the server is gone")
    monkeypatch.setattr(wire, "_loop", loop := Mock())
    await wire.close()
    assert not loop.remove_reader.called
