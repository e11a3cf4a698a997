"""The client against a raw server: answers, redirects, limits, and each way to get none."""

import asyncio
import gzip
import json
import socket

import pytest

from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest


def _activity() -> Activity:
    return Activity("test", 0)


async def _failure(client: HttpClient, request: HttpRequest) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await client.send(request, _activity())
    return caught.value


async def test_an_answer_comes_with_everything(server, client, answer) -> None:
    server.answer(answer(b'{"a":1}', "X-One: 1", "x-one: 2", status="201 Made"))
    activity = _activity()
    got = await client.send(
        HttpRequest("post", server.url + "/p?q=ä", (("A", "b"),), b"body", idempotency_key="k"),
        activity,
    )
    assert (got.status, json.loads(got.body), got.url) == (
        201,
        {"a": 1},
        server.url + "/p?q=%C3%A4",
    )
    assert [v for k, v in got.headers if k.lower() == "x-one"] == ["1", "2"]
    assert not activity.effect_possible
    request = server.requests[0].decode()
    assert request.startswith("POST /p?q=%C3%A4 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "\r\nA: b\r\n" in request
    assert "\r\nIdempotency-Key: k\r\n" in request
    assert request.endswith("Content-Length: 4\r\n\r\nbody")


async def test_connections_are_reused(server, client) -> None:
    for _ in range(5):
        await client.send(HttpRequest("GET", server.url), _activity())
    assert (server.connections, len(server.requests), client.open_connections) == (1, 5, 1)


async def test_a_connection_closed_meanwhile_is_not_used(server, client, answer) -> None:
    server.answer(answer(b"", "Connection: close"))
    for _ in range(3):
        await client.send(HttpRequest("POST", server.url), _activity())
    assert server.connections == 3
    assert client.open_connections == 0


async def test_a_safe_request_is_sent_again_when_its_idle_connection_was_dying(
    server, client, answer
) -> None:
    async def once_then_drop(request, reader, writer) -> None:
        writer.write(answer())
        await reader.readuntil(b"\r\n\r\n")
        server.answer(answer(b"again"))
        raise ConnectionError

    server.handler = once_then_drop
    await client.send(HttpRequest("GET", server.url), _activity())
    assert (await client.send(HttpRequest("GET", server.url), _activity())).body == b"again"


async def test_an_unsafe_request_is_never_sent_again(server, client, answer) -> None:
    async def once_then_drop(request, reader, writer) -> None:
        writer.write(answer())
        await reader.readuntil(b"\r\n\r\n")
        raise ConnectionError

    server.handler = once_then_drop
    await client.send(HttpRequest("GET", server.url), _activity())
    failure = await _failure(client, HttpRequest("POST", server.url))
    assert failure.code == "network"
    assert server.connections == 1


async def test_gzip_is_unpacked_and_bounded(server, client, answer) -> None:
    server.answer(answer(gzip.compress(b"x" * 100_000), "Content-Encoding: gzip"))
    assert (await client.send(HttpRequest("GET", server.url), _activity())).body == b"x" * 100_000
    failure = await _failure(client, HttpRequest("GET", server.url, max_bytes=5_000))
    assert failure.code == "limit_output"
    assert client.open_connections == 0


async def test_a_length_over_the_limit_is_refused_before_reading(server, client) -> None:
    server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    assert (await _failure(client, HttpRequest("GET", server.url))).code == "limit_output"


async def test_a_body_without_end_is_bounded(server, client) -> None:
    async def pour(request, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    server.handler = pour
    failure = await _failure(client, HttpRequest("GET", server.url, max_bytes=1_000_000))
    assert failure.code == "limit_output"
    await server.ended.wait()


# Redirects


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        ("301 x", "POST", "GET"),
        ("302 x", "POST", "GET"),
        ("302 x", "PUT", "PUT"),
        ("303 x", "PUT", "GET"),
        ("303 x", "HEAD", "HEAD"),
        ("307 x", "POST", "POST"),
        ("308 x", "POST", "POST"),
    ],
)
async def test_redirects_keep_or_change_the_method(
    server, client, answer, status, method, then
) -> None:
    body = b"" if method == "HEAD" else b"moved"
    server.answer(answer(body, "Location: /next#part", status=status), answer(b""))
    got = await client.send(
        HttpRequest(method, server.url, (("Content-Type", "a/b"),), b"data"), _activity()
    )
    assert got.url == server.url + "/next#part"
    second = server.requests[1]
    assert second.startswith(then.encode() + b" /next HTTP/1.1\r\n")
    assert second.endswith(b"data") == (then != "GET")
    assert (b"Content-Type" in second) == (then != "GET")
    assert server.connections == 1


async def test_credentials_stay_with_their_origin(server, client, answer) -> None:
    server.answer(
        answer(b"", f"Location: http://localhost.test:{server.port}/", status="302 x"), answer()
    )
    headers = (("Authorization", "Bearer s"), ("X-Api-Key", "s"), ("X-Note", "n"))
    client._pool._resolver.resolve = _resolves_to("127.0.0.1")
    await client.send(HttpRequest("GET", server.url, headers), _activity())
    assert b"Bearer s" in server.requests[0]
    assert b"X-Note: n" in server.requests[1]
    assert b"Bearer" not in server.requests[1]
    assert b"X-Api-Key" not in server.requests[1]


def _resolves_to(*addresses: str):
    async def resolve(host: str, port: int, claim: object):
        return [(socket.AF_INET, (address, port)) for address in addresses]

    return resolve


async def test_redirects_end(server, client, answer) -> None:
    server.answer(answer(b"", "Location: /", status="302 x"))
    failure = await _failure(client, HttpRequest("GET", server.url))
    assert "10 redirects" in failure.message
    assert len(server.requests) == 11


async def test_each_hop_is_judged(server, client, answer) -> None:
    server.answer(answer(b"", "Location: http://10.0.0.1/", status="302 x"))
    failure = await _failure(client, HttpRequest("GET", server.url))
    assert failure.code == "egress"
    assert "INSULA_EGRESS_ALLOW=10.0.0.1:80" in failure.message


async def test_a_redirect_elsewhere_than_http_is_no_answer(server, client, answer) -> None:
    server.answer(answer(b"", "Location: file:///etc/passwd", status="302 x"))
    failure = await _failure(client, HttpRequest("GET", server.url))
    assert (failure.code, "redirects" in failure.message) == ("network", True)


# Egress


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]", "localhost"]
)
async def test_the_loopback_is_refused_in_every_spelling(server, host: str) -> None:
    client = HttpClient(EgressPolicy())
    failure = await _failure(client, HttpRequest("GET", f"http://{host}:{server.port}/"))
    await client.close()
    assert failure.code == "egress"
    assert "INSULA_EGRESS_ALLOW" in failure.message
    assert server.connections == 0


async def test_the_address_judged_is_the_address_connected_to(server) -> None:
    """A name that answers otherwise the second time gains nothing: there is no second time."""
    client = HttpClient(EgressPolicy())
    asked = 0

    async def rebind(host: str, port: int, claim: object):
        nonlocal asked
        asked += 1
        return [(socket.AF_INET, ("127.0.0.1" if asked > 1 else "203.0.113.1", port))]

    client._pool._resolver.resolve = rebind
    failure = await _failure(client, HttpRequest("GET", f"http://rebind.test:{server.port}/"))
    await client.close()
    assert (failure.code, asked, server.connections) == ("egress", 1, 0)


async def test_proxies_of_the_environment_are_not_used(server, client, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await client.send(HttpRequest("GET", server.url), _activity())
    assert len(server.requests) == 1


# No answer


async def test_refused(client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        failure = await _failure(client, HttpRequest("GET", f"http://127.0.0.1:{port}/"))
    assert (failure.code, str(port) in failure.message) == ("refused", True)


async def test_dns(client, monkeypatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    failure = await _failure(client, HttpRequest("GET", "http://nowhere.test/secret?token=1"))
    assert failure.code == "dns"
    assert "nowhere.test" in failure.message
    assert "token" not in failure.message


async def test_timeout(server, client) -> None:
    server.handler = None
    activity = _activity()
    with pytest.raises(StepFailure) as caught:
        await client.send(HttpRequest("GET", server.url, timeout=0.05), activity)
    assert (caught.value.code, "0.05 s" in caught.value.message) == ("timeout", True)
    assert activity.effect_possible
    assert client.open_connections == 0


async def test_the_time_limit_covers_the_body(server, client) -> None:
    async def drip(request, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    server.handler = drip
    assert (await _failure(client, HttpRequest("GET", server.url, timeout=0.1))).code == "timeout"


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    ],
)
async def test_a_broken_answer_is_no_answer(server, client, wire: bytes) -> None:
    async def break_off(request, reader, writer) -> None:
        writer.write(wire)
        await writer.drain()
        raise ConnectionError

    server.handler = break_off
    failure = await _failure(client, HttpRequest("POST", server.url))
    assert failure.code == "network"
    assert client.open_connections == 0
