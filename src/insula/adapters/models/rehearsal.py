"""A small server that speaks OpenAI's chat protocol from a script: for tests, demos and benchmarks.

It listens on the loopback, streams, dawdles, breaks off, talks nonsense, refuses, calls tools, and
counts what it is asked.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from insula.kit.json import decode, encode


@dataclass(frozen=True, slots=True)
class Scene:
    """One answer. ``cut_after``, ``garbage_after`` and ``stall_after`` count pieces of text."""

    pieces: tuple[str, ...] = ("Hello", ", ", "world")
    tool_calls: tuple[tuple[str, str, str], ...] = ()
    """Id, name and arguments as text."""
    status: int = 200
    error: object = None
    """The JSON body of an answer other than 200."""
    delay: float = 0.0
    """Seconds before the head of the answer."""
    gap: float = 0.0
    """Seconds between the pieces."""
    cut_after: int | None = None
    abrupt: bool = True
    """Of a cut: break the connection; else end the answer in good order, unfinished."""
    garbage_after: int | None = None
    stall_after: int | None = None
    finish: str | None = "stop"
    done: bool = True
    usage: tuple[int, int] | None = (10, 5)
    refusal: str | None = None


@dataclass(slots=True)
class RehearsalServer:
    """What was asked, and what is answered: the scenes in order, the last one repeats."""

    scenes: list[Scene] = field(default_factory=lambda: [Scene()])
    port: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client has gone, in mid-answer or after it."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Return the base URL for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, and notice at once when its client goes."""
        self._writers.add(writer)
        head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        playing: asyncio.Future[bool] | None = None
        try:
            while True:
                scene = await self._heard((await head).decode("latin-1"), reader)
                # The next request does not come before the answer: what ends this wait meanwhile
                # is the client's going.
                head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
                playing = asyncio.ensure_future(self._play(scene, writer))
                await asyncio.wait({head, playing}, return_when=asyncio.FIRST_COMPLETED)
                if not playing.done() or not playing.result():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone; ``left`` says so
        finally:
            self.left.set()
            ended = [task for task in (head, playing) if task is not None]
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
            self._writers.discard(writer)
            writer.close()

    async def _heard(self, head: str, reader: asyncio.StreamReader) -> Scene:
        lengths = [
            int(line.split(":")[1])
            for line in head.split("\r\n")
            if line.lower().startswith("content-length:")
        ]
        body = await reader.readexactly(lengths[0] if lengths else 0)
        scene = self.scenes[min(len(self.bodies), len(self.scenes) - 1)]
        self.heads.append(head)
        self.bodies.append(decode(body) if body else {})
        self.arrived.set()
        return scene

    async def _play(self, scene: Scene, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(scene.delay)
        if scene.status != 200:
            body = encode(scene.error)
            writer.write(
                f"HTTP/1.1 {scene.status} X\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        async for piece in self._pieces(scene):
            line = b"data: " + piece + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()
            self.streaming.set()
        if scene.cut_after is not None and scene.abrupt:
            writer.transport.abort()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _pieces(self, scene: Scene) -> AsyncGenerator[bytes, None]:
        yield _chunk({"role": "assistant", "content": ""})
        for number, text in enumerate(scene.pieces):
            if number and scene.gap:
                await asyncio.sleep(scene.gap)
            if number == scene.stall_after:
                await asyncio.Event().wait()
            if number == scene.garbage_after:
                yield b"{not json"
            if number == scene.cut_after:
                return
            yield _chunk({"content": text})
        for line in _ending(scene):
            yield line

    async def hang_up(self) -> None:
        """Break off every connection, and wait until all has ended."""
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks)


def _ending(scene: Scene) -> Iterator[bytes]:
    """Give what follows the text: tool calls, refusal, reason, usage, end."""
    for number, (call_id, name, arguments) in enumerate(scene.tool_calls):
        function = {"name": name, "arguments": ""}
        call = {"index": number, "id": call_id, "type": "function", "function": function}
        yield _chunk({"tool_calls": [call]})
        for at in range(0, len(arguments), 7):
            part = {"index": number, "function": {"arguments": arguments[at : at + 7]}}
            yield _chunk({"tool_calls": [part]})
    if scene.refusal is not None:
        yield _chunk({"refusal": scene.refusal})
    if scene.finish is not None:
        yield _chunk({}, "tool_calls" if scene.tool_calls else scene.finish)
    if scene.usage is not None:
        yield _chunk(None, usage=scene.usage)
    if scene.done:
        yield b"[DONE]"


def _chunk(
    delta: dict[str, Any] | None, finish: str | None = None, usage: tuple[int, int] | None = None
) -> bytes:
    value: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "rehearsed",
        "choices": [],
    }
    if delta is not None:
        value["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
    if usage is not None:
        prompt, answer = usage
        value["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }
    return encode(value)


@asynccontextmanager
async def rehearsal(*scenes: Scene) -> AsyncGenerator[RehearsalServer, None]:
    """Serve the scenes on a free port of the loopback."""
    server = RehearsalServer(list(scenes) or [Scene()])
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.hang_up()
        await listener.wait_closed()
