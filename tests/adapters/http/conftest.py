"""A raw loopback server whose every byte the test decides, and a client that may reach it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from tests.listening import listening

from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """Counts connections and requests; ``handler`` gets each request's head and body."""

    port: int = 0
    connections: int = 0
    open: int = 0
    requests: list[bytes] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    handler: Handler | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, *answers: bytes) -> None:
        """Give these answers in turn, the last one from then on."""
        left = list(answers)

        async def handle(
            request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

        self.handler = handle

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                self.arrived.set()
                if self.handler is not None:
                    await self.handler(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.ends.append(type(error).__name__)
        finally:
            self.open -= 1
            self.ended.set()
            writer.close()


def ok(body: bytes = b"hello", *headers: str, status: str = "200 OK") -> bytes:
    """Make an answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def answer() -> Callable[..., bytes]:
    return ok


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    raw = RawServer()
    raw.answer(ok())
    async with listening(raw.serve) as raw.port:
        yield raw


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(EgressPolicy(["127.0.0.0/8"]))
    try:
        yield made
    finally:
        await made.close()
        assert made.open_connections == 0
