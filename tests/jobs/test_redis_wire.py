"""Signals over Redis: its server away, back, silent, refusing, none at all; and nothing left."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs
from tests.jobs.events import Heard, open_sockets, until
from tests.listening import listening
from tests.ports import free_port
from tests.redis_server import RedisServer, redis_server, redis_session, start_redis

from insula.jobs import resp, wire_link
from insula.jobs.signals import MESSAGE_MAX, NoAnswer, Signals
from insula.jobs.transport import open_transport

__all__ = ["redis_server", "redis_session"]

LONG = 10.0


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = start_redis()
    yield server
    server.close()


@asynccontextmanager
async def signals_at(url: str, name: str = "one") -> AsyncIterator[Signals]:
    async with open_transport(url, name) as transport:
        assert transport.carrier == "Redis"
        yield transport.signals


async def echo(body: bytes) -> bytes:
    return body


async def test_a_server_that_went_and_came_back_is_told_of_once(own_server: RedisServer) -> None:
    async with signals_at(own_server.url) as one, signals_at(own_server.url) as two:
        await until(lambda: one.connected and two.connected)
        heard, returned, ended = Heard(), asyncio.Event(), Heard()
        await two.listen("run.one", heard)
        await two.answer("echo", echo)
        end = await two.listen("run.one", ended)
        two.on_return(returned.set)
        with capture_logs() as logs:
            own_server.kill()
            await until(lambda: not one.connected and not two.connected)
            end()
            one.publish("run.one", b"lost")
            with pytest.raises(NoAnswer, match="away"):
                await one.ask("echo", b"", LONG)
            own_server.start()
            await asyncio.wait_for(returned.wait(), 20)
            await until(lambda: one.connected)
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]
        assert await one.ask("echo", b"a", LONG) == b"a"
        assert ended.bodies == []
        events = [log["event"] for log in logs]
        assert sorted(events) == ["broker.away"] * 2 + ["broker.back"] * 2


async def test_a_server_that_falls_silent_is_noticed(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_link, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(wire_link, "SILENT_WITHIN", 10.0)
    async with signals_at(own_server.url) as one:
        await until(lambda: one.connected)
        monkeypatch.setattr(wire_link, "SILENT_WITHIN", 0.3)
        own_server.pause()
        for number in range(2_000):  # more than sockets hold: the rest waits for room in them
            one.publish("run.one", b"%d" % number + b"x" * 4096)
        await until(lambda: not one.connected)
        assert one.lost == 2_000
        monkeypatch.setattr(wire_link, "SILENT_WITHIN", 10.0)  # a busy machine is not silent
        own_server.resume()
        await until(lambda: one.connected)
        heard = Heard()
        await one.listen("run.one", heard)
        one.publish("run.one", b"heard")
        assert await heard.first(1) == [b"heard"]


async def test_where_somebody_has_died_it_is_said_at_once(own_server: RedisServer) -> None:
    async with signals_at(own_server.url) as one:
        await until(lambda: one.connected)
        async with signals_at(own_server.url) as two:
            await until(lambda: two.connected)
            await two.answer("echo", echo)
            assert await one.ask("echo", b"a", LONG) == b"a"
        with pytest.raises(NoAnswer, match="nobody answers"):
            await one.ask("echo", b"a", 3600)


async def publish_to_all(server: RedisServer, body: bytes) -> None:
    """Publish to whatever anybody listens to, as one who knows nothing of nodes may."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(resp.packed(b"PUBSUB", b"CHANNELS", b"insula_*"))
    channels = await resp.read(reader)
    assert isinstance(channels, list)
    assert channels
    for channel in channels:
        writer.write(resp.packed(b"PUBLISH", channel, body))
        await resp.read(reader)
    writer.close()


async def test_what_anyone_publishes_costs_that_message_alone(redis_server: RedisServer) -> None:
    lengths = [0, 100, MESSAGE_MAX + 1, resp.BULK_MAX, resp.BULK_MAX + 1, 3_000_000]
    name = redis_server.installation()
    async with signals_at(redis_server.url, name) as one:
        await until(lambda: one.connected)
        heard = Heard()
        await one.listen("run.one", heard)
        await one.answer("echo", echo)
        with capture_logs() as logs:
            for length in lengths:
                await publish_to_all(redis_server, b"\xff" * length)
            assert await one.ask("echo", b"a", LONG) == b"a"
        assert [len(body) for body in await heard.first(2)] == [0, 100]
        assert one.trouble is None
        assert one.lost > 0
        assert [log["event"] for log in logs] == ["signal.unreadable"]  # the others are counted


async def test_credentials_are_decoded_and_never_shown() -> None:
    rights = ["&insula_*", "+@connection", "+subscribe", "+unsubscribe", "+publish"]
    server = start_redis("--user", "ada", "on", ">s@cret:5", *rights, "--user", "default", "off")
    try:
        right = server.url.replace("//", "//ada:s%40cret%3A5@")
        wrong = server.url.replace("//", "//ada:s%40crets@")
        with capture_logs() as logs:
            async with signals_at(wrong) as one:
                await until(lambda: any(log["event"] == "broker.away" for log in logs))
                assert not one.connected
                assert one.trouble == "Redis refuses: WRONGPASS"
            async with signals_at(right) as one:
                await until(lambda: one.connected)
                await one.answer("echo", echo)
                assert await one.ask("echo", b"a", LONG) == b"a"
        assert "cret" not in str(logs)
    finally:
        server.close()


async def test_a_user_who_may_not_listen_is_away_and_told_why() -> None:
    server = start_redis("--user", "default", "on", "nopass", "resetchannels", "+@all")
    try:
        async with signals_at(server.url) as one:
            await until(lambda: one.trouble == "Redis refuses: NOPERM")
            assert not one.connected
    finally:
        server.close()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for the loopback, which signs itself; return it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(loopback, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "own.crt", folder / "own.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


async def test_over_tls_only_who_can_be_trusted_is_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = write_certificate(tmp_path)
    port = free_port()
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = start_redis("--tls-port", str(port), *files, "--tls-auth-clients", "no")
    try:
        url = f"rediss://127.0.0.1:{port}"
        async with signals_at(url) as one:
            await until(lambda: "certificate" in str(one.trouble).lower())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with signals_at(url) as one:
            await until(lambda: one.connected)
            await one.answer("echo", echo)
            assert await one.ask("echo", b"x" * 100_000, LONG) == b"x" * 100_000
    finally:
        server.close()


@pytest.mark.parametrize(
    "words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n+OK\r\n", b"$9\r\n"]
)
async def test_what_is_no_redis_is_away_and_harms_nothing(words: bytes) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    async with listening(babble) as port:
        with capture_logs() as logs:
            async with signals_at(f"redis://127.0.0.1:{port}") as one:
                await until(lambda: bool(logs))
                assert not one.connected
    assert {log["event"] for log in logs} == {"broker.away"}


async def test_nothing_is_left_behind(own_server: RedisServer) -> None:
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
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert open_sockets() == sockets
