"""Event streams: frames, the end, silence, clients that leave, sources that fail."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from insula.errors import Unavailable
from insula.web import sse
from insula.web.sse import EventStream, frame


def test_frames() -> None:
    assert frame("run", b'{"a":1}', 7) == b'id: 7\nevent: run\ndata: {"a":1}\n\n'
    assert frame("step", b"{}") == b"event: step\ndata: {}\n\n"
    assert frame("chunk", b'{\n"a":\r\n1}') == b'event: chunk\ndata: {\ndata: "a":\ndata: 1}\n\n'


class Connection:
    """The two ends of an ASGI connection; ``leave`` is the client going away."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()
        self.stuck = False

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.sent.append(message)
        self.arrived.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Source:
    """Yields what it is given, then waits or ends; remembers that it was closed."""

    def __init__(self, *pieces: bytes, wait: bool = False, fail: bool = False) -> None:
        self.pieces = pieces
        self.wait = wait
        self.fail = fail
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self.pieces:
                yield piece
            if self.fail:
                raise LookupError("the journal is gone")
            if self.wait:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def test_a_stream_starts_early_and_ends() -> None:
    connection, source = Connection(), Source(frame("run", b"{}", 1), frame("run", b"[]", 2))
    stream = EventStream(source())
    await stream({"type": "http"}, connection.receive, connection.send)
    start = connection.sent[0]
    assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
    assert connection.sent[1]["body"].startswith(b":")
    assert connection.body.endswith(b"id: 2\nevent: run\ndata: []\n\n")
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert source.closed
    assert not stream.disconnected


async def test_a_client_that_leaves_ends_the_source() -> None:
    connection, source = Connection(), Source(frame("run", b"{}", 1), wait=True)
    stream = EventStream(source())
    connection.left.set()
    await stream({"type": "http"}, connection.receive, connection.send)
    assert stream.disconnected
    assert source.closed
    assert all(message.get("more_body", True) for message in connection.sent)


async def test_a_server_that_cancels_what_is_awaited_has_lost_its_client() -> None:
    connection, source = Connection(), Source(wait=True)

    async def receive() -> Message:
        raise asyncio.CancelledError

    stream = EventStream(source())
    await stream({"type": "http"}, receive, connection.send)
    assert stream.disconnected
    assert source.closed


async def test_silence_is_filled_with_comments() -> None:
    connection, source = Connection(), Source(wait=True)
    stream = EventStream(source(), keep_alive=0.001)
    serving = asyncio.create_task(stream({"type": "http"}, connection.receive, connection.send))
    while connection.body.count(b": alive") < 3:
        connection.arrived.clear()
        await connection.arrived.wait()
    connection.left.set()
    await serving
    assert source.closed


async def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "STALLED", 0.01)
    connection, source = Connection(), Source(b"x", b"y", wait=True)
    stream = EventStream(source())
    serving = asyncio.create_task(stream({"type": "http"}, connection.receive, connection.send))
    await connection.arrived.wait()
    connection.stuck = True
    with pytest.raises(ExceptionGroup) as raised:
        await serving
    assert raised.group_contains(ClientDisconnect)
    assert source.closed


async def test_a_source_that_fails_breaks_the_stream() -> None:
    connection, source = Connection(), Source(b"x", fail=True)
    with pytest.raises(ExceptionGroup) as raised:
        await EventStream(source())({"type": "http"}, connection.receive, connection.send)
    assert raised.group_contains(LookupError)
    assert connection.sent[-1].get("more_body") is True


async def test_a_source_that_cannot_go_on_now_ends_the_stream_without_its_last_event() -> None:
    async def source() -> AsyncGenerator[bytes, None]:
        yield b"x"
        raise Unavailable("Not now", retry_after=1)

    connection = Connection()
    await EventStream(source())({"type": "http"}, connection.receive, connection.send)
    assert connection.body.endswith(b"x")
    assert connection.sent[-1].get("more_body") is False


async def test_cancelled_it_closes_its_source() -> None:
    connection, source = Connection(), Source(wait=True)
    stream = EventStream(source())
    serving = asyncio.create_task(stream({"type": "http"}, connection.receive, connection.send))
    await connection.arrived.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
