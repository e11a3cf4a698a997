"""Servers that a test plays: whatever was accepted is closed, and whoever handles it has ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Handlers:
    """The tasks of a server, one a connection."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._open: dict[asyncio.Future[None], asyncio.StreamWriter] = {}

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection; for ``asyncio.start_server``."""
        task = asyncio.ensure_future(self._handle(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._ended)

    async def end(self) -> None:
        """End them all, of a server that is closed."""
        for _ in range(5):  # what was accepted before gets to its task
            await asyncio.sleep(0)
        left = dict(self._open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for writer in left.values():
            writer.transport.abort()
        await asyncio.sleep(0)

    def _ended(self, task: "asyncio.Future[None]") -> None:
        # One that is cancelled before its first step closes nothing itself.
        self._open.pop(task).close()
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a test's server broke", "exception": error, "future": task}
            )


async def stop(server: asyncio.Server) -> None:
    """Listen no more. What was accepted already gets its transport first: asyncio makes none for a
    server that is closed, and leaves the socket open."""
    for sock in server.sockets:
        asyncio.get_running_loop().remove_reader(sock.fileno())
    await asyncio.sleep(0)
    server.close()


@asynccontextmanager
async def listening(handle: Handle, **given: Any) -> AsyncIterator[int]:
    """Handle every connection to a port of the loopback until the block is left."""
    handlers = Handlers(handle)
    server = await asyncio.start_server(handlers.connected, "127.0.0.1", 0, **given)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await stop(server)
        await handlers.end()
        await server.wait_closed()
