"""An HTTP server on the loopback that steps call: it counts and time-stamps every request, and can
answer, dawdle, hang, drip tokens, or break off, as the path says.
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

WAIT = 20.0
"""Seconds after which something that should have happened has not."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request; ``at`` is CLOCK_MONOTONIC, ``tag`` whatever stands last in its path."""

    at: float
    method: str
    path: str
    tag: str
    key: str | None
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Loopback:
    """What arrived, what was answered, and whose client went away before its answer."""

    url: str
    arrivals: list[Arrival] = field(default_factory=list)
    answered: list[Arrival] = field(default_factory=list)
    abandoned: list[Arrival] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _open: int = 0

    def of(self, tag: str) -> list[Arrival]:
        """Return the requests that carry this tag."""
        return [arrival for arrival in self.arrivals if arrival.tag == tag]

    async def until(self, condition: Callable[[], bool], what: str = "requests") -> None:
        """Wait until a condition on what arrived, was answered or abandoned holds."""
        try:
            async with asyncio.timeout(WAIT):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}") from None

    async def arrived(self, tag: str, count: int = 1) -> None:
        """Wait until so many requests with this tag are there."""
        await self.until(lambda: len(self.of(tag)) >= count, f"{count} requests of {tag}")

    async def left(self, tag: str) -> None:
        """Wait until the client of this tag's unanswered request has gone."""
        await self.until(lambda: any(a.tag == tag for a in self.abandoned), f"the end of {tag}")

    async def barrier(self) -> int:
        """Return how many requests had arrived, all that were on their way by now included.

        What had reached this machine's queues before is read before this connection is.
        """
        port = int(self.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /barrier HTTP/1.1\r\nHost: loopback\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
        finally:  # whoever waits here may be cancelled
            writer.close()
        await writer.wait_closed()
        return len(self.arrivals)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step closes nothing itself.
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        next_head: asyncio.Task[bytes] | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            while True:
                arrival = await _read(head, reader)
                if arrival.path != "/barrier":
                    self._note(self.arrivals, arrival)
                next_head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
                playing = asyncio.ensure_future(_play(arrival, writer))
                # The next request does not come before the answer: what ends this wait meanwhile
                # is the client's going.
                await asyncio.wait({next_head, playing}, return_when=asyncio.FIRST_COMPLETED)
                if not playing.done() or isinstance(playing.exception(), ConnectionError):
                    playing.cancel()
                    self._note(self.abandoned, arrival)
                    return
                playing.result()
                if arrival.path != "/barrier":
                    self._note(self.answered, arrival)
                head = await next_head
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            if next_head is not None:
                next_head.cancel()
                await asyncio.gather(next_head, return_exceptions=True)
            writer.close()

    def _note(self, where: list[Arrival], arrival: Arrival) -> None:
        where.append(arrival)
        self._changed.set()

    async def close(self) -> None:
        """Break every connection off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(head: bytes, reader: asyncio.StreamReader) -> Arrival:
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    path = target.partition("?")[0]
    tag = path.rpartition("/")[2]
    if path.startswith("/v1/"):  # a model is asked: the first message names the tag
        tag = json.loads(body)["messages"][0]["content"]
    key = headers.get("idempotency-key")
    return Arrival(time.monotonic(), method, path, tag, key, headers, body)


async def _play(arrival: Arrival, writer: asyncio.StreamWriter) -> None:
    _, kind, *more = arrival.path.split("/")
    if kind == "hang":
        await asyncio.Event().wait()
    elif kind == "v1":
        await _drip(writer)
    elif kind == "cut":
        writer.transport.abort()
    else:
        if kind == "slow":
            await asyncio.sleep(int(more[0]) / 1000)
        if writer.is_closing():
            raise ConnectionResetError
        body = json.dumps({"ok": True, "tag": arrival.tag}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Speak OpenAI's chat protocol: a token every few milliseconds, without end."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    while not writer.is_closing():
        choice = {"index": 0, "delta": {"content": "drip "}, "finish_reason": None}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "drip"}
        line = b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"
        writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        await writer.drain()
        await asyncio.sleep(0.005)
    raise ConnectionResetError


def reserve() -> socket.socket:
    """Take a free port of the loopback before anybody serves on it."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def url_of(reserved: socket.socket) -> str:
    """Return the address of a reserved port."""
    return f"http://127.0.0.1:{reserved.getsockname()[1]}"


@asynccontextmanager
async def serving(reserved: socket.socket) -> AsyncIterator[Loopback]:
    """Serve on a reserved port, which stays reserved afterwards."""
    loopback = Loopback(url_of(reserved))
    server = await asyncio.start_server(loopback.connected, sock=reserved.dup(), backlog=1024)
    try:
        yield loopback
    finally:
        server.close()
        await loopback.close()
        await server.wait_closed()
