"""Addresses that mean no good, on real sockets: where they may be, and what they may answer."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.adapters.http.conftest import RawServer, ok
from tests.adapters.http.conftest import server as server
from tests.runs.platform import Platform

from insula.adapters.http import network
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.webhooks import deliver

pytestmark = pytest.mark.parametrize("platform", ["sqlite"], indirect=True)

Opened = Callable[..., HttpClient]
INNER = (
    *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "2130706433"),
    *("127.1", "0.0.0.0", "169.254.169.254", "10.0.0.1", "192.168.0.1", "100.64.0.1"),
    *("[fd00::1]", "[64:ff9b::7f00:1]"),
)


@pytest.fixture
async def opened(platform: Platform) -> AsyncIterator[Opened]:
    """Let webhooks leave through a real client, under a policy that allows these."""
    made: list[HttpClient] = []

    def open_client(*allowed: str) -> HttpClient:
        client = HttpClient(EgressPolicy(allowed))
        platform.services.http = client
        made.append(client)
        return client

    yield open_client
    for client in made:
        await client.close()
        assert client.open_connections == 0


async def tried(platform: Platform, url: str) -> dict[str, Any]:
    """Make a webhook of an address and tell it of a test; return the delivery."""
    acme = platform.acme
    made = await acme.ok("POST", "/webhooks", {"url": url, "events": ["record.failed"]})
    found: dict[str, Any] = await acme.ok("POST", f"/webhooks/{made['id']}/test")
    assert len(found["attempts"]) == 1
    return found


def error_of(delivery: dict[str, Any]) -> str:
    return str(delivery["attempts"][0].get("error"))


async def test_addresses_that_are_not_public_are_never_connected_to(
    platform: Platform, opened: Opened, server: RawServer
) -> None:
    opened()
    for host in INNER:
        found = await tried(platform, f"http://{host}:{server.port}/")
        assert found["status"] == "PENDING"
        words = ("egress policy", "cannot be resolved")
        assert any(word in error_of(found) for word in words), (host, found)
    assert server.connections == 0


async def test_ports_of_other_protocols_are_refused(platform: Platform, opened: Opened) -> None:
    opened("127.0.0.1:8080")
    found = await tried(platform, "http://127.0.0.1:25/")
    assert "port 25 belongs to another protocol" in error_of(found)


async def test_a_redirect_is_not_followed_wherever_it_leads(
    platform: Platform, opened: Opened, server: RawServer
) -> None:
    elsewhere = RawServer()
    listener = await asyncio.start_server(elsewhere.serve, "127.0.0.1", 0)
    elsewhere.port = listener.sockets[0].getsockname()[1]
    opened("127.0.0.1")
    try:
        for status in ("301 Moved", "303 See", "307 Same", "308 Same"):
            server.answer(ok(b"", f"Location: {elsewhere.url}/in", status=status))
            found = await tried(platform, server.url)
            assert found["attempts"][0]["status"] == int(status[:3])
            assert "redirects elsewhere" in error_of(found)
    finally:
        listener.close()
        await listener.wait_closed()
    assert elsewhere.connections == 0


async def test_a_name_that_changes_its_mind_is_judged_each_time(
    platform: Platform, opened: Opened, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["127.0.0.1", "127.0.0.2"]

    def look_up(host: str, port: int, flags: int) -> list[network.Target]:
        assert host == "hooks.test"
        return [(socket.AF_INET, (answers.pop(0), port))]

    monkeypatch.setattr(network, "_look_up", look_up)
    server.answer(ok(b"", "Connection: close"))
    opened(f"127.0.0.1:{server.port}")  # as if this one were public, and the other not
    found = await tried(platform, f"http://hooks.test:{server.port}/")
    assert found["status"] == "DELIVERED"
    found = await tried(platform, f"http://hooks.test:{server.port}/")
    assert "egress policy" in error_of(found)
    assert (server.connections, answers) == (1, [])


async def test_credentials_in_an_address_are_sent_and_told_to_nobody(
    platform: Platform, opened: Opened, server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    opened("127.0.0.1")
    server.answer(ok(b"", status="500 No"))
    url = f"http://user:geheim-4711@127.0.0.1:{server.port}/in"
    found = await tried(platform, url)
    assert b"authorization: basic dXNlcjpnZWhlaW0tNDcxMQ==" in server.requests[0].replace(
        b"Authorization: Basic", b"authorization: basic"
    )
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    refused = await tried(platform, f"http://user:geheim-4711@127.0.0.1:{closed.getsockname()[1]}/")
    closed.close()
    assert "geheim" not in json.dumps([found, refused]) + caplog.text


async def test_an_address_that_never_answers_has_so_many_seconds(
    platform: Platform, opened: Opened, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "TIMEOUT", 0.2)
    opened("127.0.0.1")
    server.handler = None
    found = await tried(platform, server.url)
    assert "did not answer completely within 0.2 s" in error_of(found)
    async with asyncio.timeout(5):
        await server.ended.wait()  # its connection is closed


async def test_an_answer_that_trickles_has_no_more_seconds(
    platform: Platform, opened: Opened, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "TIMEOUT", 0.3)
    opened("127.0.0.1")

    async def trickle(
        request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    server.handler = trickle
    assert "did not answer completely" in error_of(await tried(platform, server.url))


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_of_ten_gibibytes_is_not_read(
    platform: Platform, opened: Opened, server: RawServer, announced: bool
) -> None:
    sent = 0

    async def pour(
        request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        head = b"Content-Length: 10737418240" if announced else b"Transfer-Encoding: chunked"
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        piece = b"x" * 65_536
        while True:
            writer.write(piece if announced else b"10000\r\n" + piece + b"\r\n")
            await writer.drain()
            sent += len(piece)

    opened("127.0.0.1")
    server.handler = pour
    found = await tried(platform, server.url)
    assert found["status"] == "PENDING"
    assert "65536" in error_of(found)
    async with asyncio.timeout(5):
        await server.ended.wait()
    assert sent < 32 * 1024 * 1024  # what the sockets' buffers took


async def test_an_address_that_is_gone_is_told_nothing_more(
    platform: Platform, opened: Opened, server: RawServer
) -> None:
    opened("127.0.0.1")
    server.answer(ok(b"", status="410 Gone"))
    found = await tried(platform, server.url)
    assert (found["status"], found["attempts"][0]["status"]) == ("FAILED", 410)
    (webhook,) = await platform.acme.ok("GET", "/webhooks")
    assert not webhook["enabled"]
    log = await platform.acme.ok("GET", f"/webhooks/{webhook['id']}/deliveries")
    assert [one["event"] for one in log] == ["webhook.disabled", "webhook.test"]
