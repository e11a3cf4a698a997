"""A TCP proxy on the loopback that can misbehave: cut connections, stall them, refuse new ones, or
do so at the moment in which certain bytes come by.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.listening import Handlers, stop
from tests.ports import free_port

Where = Literal["before", "after"]


class Proxy:
    """Forwards ``port`` to a server of the loopback, as long as it is well disposed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.connections = 0
        """How many connections were taken so far."""
        self.tripped = asyncio.Event()
        """Set when a connection was cut by ``cut_at``."""
        self._server: asyncio.Server | None = None
        self._handlers = Handlers(self._serve)
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._trap: tuple[bytes, Where] | None = None

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for writer in list(self._open):
            writer.transport.abort()

    def cut_at(self, wanted: bytes, where: Where) -> None:
        """Cut the next connection whose client sends these bytes: ``before`` they reach the server,
        or ``after``, when the server has answered and before the client hears of it."""
        self.tripped.clear()
        self._trap = (wanted, where)

    def stall(self) -> None:
        """Forward nothing more, and keep every connection open."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Forward again, first what was held up."""
        self._flowing.set()

    async def refuse(self) -> None:
        """Take no more connections, as if nobody listened, and cut those that are open."""
        if self._server is not None:
            server, self._server = self._server, None
            await stop(server)
        self.cut()

    async def listen(self) -> None:
        """Take connections (again), always on the same port."""
        self._server = await asyncio.start_server(self._handlers.connected, "127.0.0.1", self.port)

    async def close(self) -> None:
        """End everything."""
        self.go_on()
        await self.refuse()
        await self._handlers.end()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._open |= both
        muted = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, back, both, muted, True))
                group.create_task(self._forward(there, writer, both, muted, False))
        except* OSError:
            pass  # cut, by us or by one of them
        finally:
            for one in both:
                one.transport.abort()
            self._open -= both

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        muted: asyncio.Event,
        asking: bool,
    ) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            if not asking and muted.is_set():
                self._abort(both)  # the server has answered what the trap was for
                return
            if asking and self._trap is not None and self._trap[0] in data:
                where = self._trap[1]
                self._trap = None
                if where == "before":
                    self._abort(both)
                    return
                muted.set()
            writer.write(data)
            await writer.drain()
        self._abort(both, tripped=False)

    def _abort(self, both: set[asyncio.StreamWriter], tripped: bool = True) -> None:
        for one in both:
            one.transport.abort()
        if tripped:
            self.tripped.set()


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """A proxy before a port, until the block is left."""
    proxy = Proxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        with contextlib.suppress(OSError):
            await proxy.close()
