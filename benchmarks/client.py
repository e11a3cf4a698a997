"""A small HTTP client for load: keep-alive connections, one request at a time on each, little CPU.

Run as a program it drives one request from several callers and prints its figures as JSON, so that
the client's work is not done by the server's process.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode

_NEXT = re.compile(rb"(?i)\r\npagination-next: ([^\r]+)")


class Caller(asyncio.Protocol):
    """One connection: sends bytes, hands back the status and body of the answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._length = -1
        self._start = 0
        self.head = b""
        """Of the last answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # the fast loop's is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = bytes(self._buffer[:end])
            head = self.head.lower()
            at = head.find(b"content-length:")
            if at < 0:
                raise ValueError("this client reads answers with a content-length only")
            self._length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            self._start = end + 4
        if len(self._buffer) - self._start < self._length:
            return
        status = int(self._buffer[9:12])
        body = bytes(self._buffer[self._start : self._start + self._length])
        self._buffer.clear()
        self._length = -1
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result((status, body))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and wait for its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


def request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """Make the bytes of a request."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def walk(
    port: int, path: str, key: str, query: Mapping[str, str], pages: int
) -> dict[str, float]:
    """Walk pages of 20 by cursor, from the start again at the end; return the milliseconds."""
    _, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", port)
    took, following = [], {}
    try:
        for _ in range(pages):
            asked = urlencode({"take": "20", **query, **following})
            began = time.perf_counter()
            status, body = await caller.ask(request("GET", f"{path}?{asked}", key))
            took.append((time.perf_counter() - began) * 1000)
            if status != 200:
                raise ValueError(f"answer {status}: {body[:300]!r}")
            found = _NEXT.search(caller.head)
            following = {"next": found[1].decode()} if found else {}
    finally:
        caller.close()
    took.sort()
    return {f"p{share}_ms": percentile(took, share / 100) for share in (50, 95, 99)}


@dataclass(frozen=True)
class Driven:
    """Latencies in seconds of the requests that were answered, over a time in seconds."""

    latencies: list[float]
    seconds: float

    def figures(self) -> dict[str, float]:
        """Return rate a second and percentiles in milliseconds."""
        ordered = sorted(self.latencies)
        return {
            "rate": len(ordered) / self.seconds,
            "p50_ms": percentile(ordered, 0.50) * 1000,
            "p95_ms": percentile(ordered, 0.95) * 1000,
            "p99_ms": percentile(ordered, 0.99) * 1000,
        }


def percentile(ordered: list[float], share: float) -> float:
    """Return a percentile of ordered values, by the nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def drive(port: int, data: bytes, callers: int, warm_up: float, seconds: float) -> Driven:
    """Send one request over and over from several callers; count after the warm-up."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    begin = time.perf_counter() + warm_up
    end = begin + seconds

    async def one() -> None:
        _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
        try:
            while (started := time.perf_counter()) < end:
                status, body = await caller.ask(data)
                if status != 200:
                    raise ValueError(f"answer {status}: {body[:300]!r}")
                if started >= begin:
                    latencies.append(time.perf_counter() - started)
        finally:
            caller.close()

    await asyncio.gather(*(one() for _ in range(callers)))
    return Driven(latencies, seconds)


async def _main() -> None:
    asked = json.load(sys.stdin)
    driven = await drive(
        asked["port"],
        asked["request"].encode("latin-1"),
        asked["callers"],
        asked["warm_up"],
        asked["seconds"],
    )
    print(json.dumps(driven.figures()))


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main())
