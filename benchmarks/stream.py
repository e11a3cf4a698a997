"""Streams: from the provider's token to the client's event, on one machine and one clock."""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.client import percentile
from benchmarks.server import Server, serving

_GAP = 0.01
"""Seconds between two tokens, so that each is an event of its own."""


def _piece(content: str) -> bytes:
    delta = {"index": 0, "delta": {"role": "assistant", "content": content}}
    event = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "clock",
        "choices": [delta],
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def _provide(tokens: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer any request with tokens that say when they were sent."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    await reader.readexactly(length)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(tokens):
            await asyncio.sleep(_GAP)
            writer.write(_piece(f"<{time.monotonic_ns()}>"))
            await writer.drain()
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def providing(tokens: int) -> AsyncIterator[str]:
    """Run a provider on the loopback; yields its base URL."""

    async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _provide(tokens, reader, writer)

    server = await asyncio.start_server(provide, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


WORKFLOW = {
    "name": "Clock",
    "steps": [
        {
            "type": "model",
            "key": "answer",
            "provider": {
                "provider": "clock",
                "model": "clock",
                "messages": [{"role": "user", "content": "What time is it?"}],
            },
        }
    ],
}


async def measure(tokens: int) -> dict[str, float]:
    """Return the milliseconds that the product adds between provider and client, per token."""
    with tempfile.TemporaryDirectory() as name:
        async with providing(tokens) as url:
            settings = {"provider_clock_url": url, "provider_clock_key": "none"}
            async with serving(Path(name), **settings) as server:
                key = await server.app("Bench")
                made = await server.deploy(key, WORKFLOW)
                await _stream(server, key, made)  # loads the provider's library
                delays = sorted(await _stream(server, key, made))
    return {
        "tokens": len(delays),
        "p50_ms": percentile(delays, 0.50),
        "p95_ms": percentile(delays, 0.95),
        "p99_ms": percentile(delays, 0.99),
    }


async def _stream(server: Server, key: str, workflow_id: str) -> list[float]:
    """Stream a run; return each token's delay in milliseconds."""
    delays: list[float] = []
    headers = {"authorization": f"Bearer {key}"}
    path = f"/apps/c/workflows/{workflow_id}/runs"
    async with server.http.stream("POST", path, json={"stream": True}, headers=headers) as answer:
        event = ""
        async for line in answer.aiter_lines():
            now = time.monotonic_ns()
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: ") and event == "chunk":
                message = json.loads(line[6:])["output"]["message"]
                stamps = message.replace(">", " ").replace("<", " ").split()
                delays += [(now - int(stamp)) / 1e6 for stamp in stamps]
    return delays


async def _main() -> Any:
    return await measure(int(sys.argv[1]) if len(sys.argv) > 1 else 300)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main()), indent=1))
