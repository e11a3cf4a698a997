"""Servers that mean harm: what they send is bounded, and never keeps the loop to itself."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from tests.listening import listening

from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.pool import _TURN
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]

Case = Callable[[HttpClient, str], Awaitable[None]]


class Ticker:
    """Another task of the loop; counts the turns that it gets."""

    def __init__(self) -> None:
        self.turns = 0
        self.task = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)


def _run(loop_factory: Callable[[], asyncio.AbstractEventLoop], answer: bytes, case: Case) -> None:
    """Run a case on a loop, against a server that answers, and then says no more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        client = HttpClient(EgressPolicy(["127.0.0.0/8"]))
        async with listening(serve) as port:
            await case(client, f"http://127.0.0.1:{port}/")
            await client.close()
        assert client.open_connections == 0

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


async def _failure(client: HttpClient, url: str, **changes: int) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await client.send(HttpRequest("GET", url, **changes), Activity("test", 0))
    return caught.value


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_the_shortest_chunks_leave_the_loop_its_turns(loop_factory) -> None:
    async def case(client: HttpClient, url: str) -> None:
        ticker = Ticker()
        got = await client.send(HttpRequest("GET", url), Activity("test", 0))
        ticker.task.cancel()
        assert got.body == b"a" * 20_000
        assert ticker.turns >= 20_000 / _TURN

    _run(loop_factory, CHUNKED + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n", case)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_many_such_answers_share_the_turns(loop_factory) -> None:
    async def case(client: HttpClient, url: str) -> None:
        ticker = Ticker()
        sends = (client.send(HttpRequest("GET", url), Activity("test", 0)) for _ in range(10))
        await asyncio.gather(*sends)
        ticker.task.cancel()
        assert ticker.turns >= 10 * 2_000 / _TURN

    _run(loop_factory, CHUNKED + b"1\r\na\r\n" * 2_000 + b"0\r\n\r\n", case)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_flood_is_cancelled_in_the_middle(loop_factory) -> None:
    async def case(client: HttpClient, url: str) -> None:
        task = asyncio.create_task(client.send(HttpRequest("GET", url), Activity("test", 0)))
        for _ in range(500):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.open_connections == 0

    _run(loop_factory, CHUNKED + b"1\r\na\r\n" * 100_000, case)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_flood_does_not_outlast_the_time_limit(loop_factory) -> None:
    async def case(client: HttpClient, url: str) -> None:
        assert (await _failure(client, url, timeout=0.05)).code == "timeout"

    _run(loop_factory, CHUNKED + b"1\r\na\r\n" * 300_000, case)


@pytest.fixture
def refused(server, client) -> Callable[..., Awaitable[StepFailure]]:
    async def ask(answer: bytes, **changes: int) -> StepFailure:
        server.answer(answer)
        failure = await _failure(client, server.url, **changes)
        assert client.open_connections == 0
        return failure

    return ask


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early Hints"])
async def test_interim_answers_are_counted(refused, server, client, answer, status) -> None:
    interim = b"HTTP/1.1 " + status + b"\r\n\r\n"
    failure = await refused(interim * 21 + answer())
    assert (failure.code, "more than 20 interim" in failure.message) == ("network", True)
    server.answer(interim * 20 + answer())
    for _ in range(2):  # counted anew
        got = await client.send(HttpRequest("GET", server.url), Activity("test", 0))
        assert got.body == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 5_000,
        b"HTTP/1.1 100 Continue\r\n" + b"a:\n" * 5_000,
        CHUNKED + b"0\r\n" + b"a:\r\n" * 5_000,
        CHUNKED + b"2000\r\n" + b"x" * 0x2000 + b"\r\n0\r\n" + b"a:\r\n" * 5_000,
    ],
)
async def test_lines_of_headers_are_counted(refused, answer) -> None:
    failure = await refused(answer)
    assert (failure.code, "500 lines" in failure.message) == ("network", True)


async def test_what_is_around_the_body_is_bounded(refused) -> None:
    chunk = b"1;" + b"x" * 2_000 + b"\r\na\r\n"
    failure = await refused(CHUNKED + chunk * 500, max_bytes=1_000)
    assert failure.code == "limit_output"
    assert "more than 266144 bytes" in failure.message


async def test_short_chunks_of_a_short_body_are_no_offence(server, client) -> None:
    server.answer(CHUNKED + b"1\r\na\r\n" * 1_000 + b"0\r\nX-Sum: 1\r\n\r\n")
    for _ in range(2):
        got = await client.send(HttpRequest("GET", server.url, max_bytes=1_000), Activity("x", 0))
        assert got.body == b"a" * 1_000
    assert server.connections == 1


@pytest.mark.parametrize("size", [16 * 1024, 1 << 20])
async def test_large_chunks_are_read_in_large_portions(server, client, monkeypatch, size) -> None:
    units = 0
    take = client._pool.turns.take

    def counted(more: int = 1) -> object:
        nonlocal units
        units += more
        return take(more)

    monkeypatch.setattr(client._pool.turns, "take", counted)
    chunk = b"%x\r\n%b\r\n" % (size, b"\n0\r\n" * (size // 4))
    server.answer(CHUNKED + chunk * ((1 << 20) // size) + b"0\r\n\r\n")
    got = await client.send(HttpRequest("GET", server.url), Activity("test", 0))
    assert got.body == b"\n0\r\n" * (1 << 18)
    assert units < 400


async def test_a_connection_with_an_answer_that_nobody_asked_for_is_not_kept(
    server, client, answer
) -> None:
    server.answer(answer(b"a") + answer(b"b"))
    for _ in range(2):
        got = await client.send(HttpRequest("GET", server.url), Activity("test", 0))
        assert got.body == b"a"
    assert server.connections == 2
