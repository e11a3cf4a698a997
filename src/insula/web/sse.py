"""Server-sent events: frames of bytes, kept alive, ended when either side is done."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

KEEP_ALIVE = 10.0
"""Seconds of silence after which a comment is sent."""
STALLED = 30.0
"""Seconds that a client may leave a frame unread before its stream is closed."""

_OPEN = b": open\n\n"
_ALIVE = b": alive\n\n"


def frame(event: str, data: bytes, identifier: str | int | None = None) -> bytes:
    """Make one event; line breaks inside ``data`` become several ``data`` lines."""
    head = b"" if identifier is None else b"id: %s\n" % str(identifier).encode()
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.splitlines())
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode(), data)


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has gone away; the body must have been read."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


class EventStream(Response):
    """Answers with the frames of ``source``, which is closed however the stream ends.

    When the client goes away the source is cancelled where it waits and ``disconnected`` is true.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        own = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        self.status_code = 200
        self.background = None
        self.init_headers({**own, **(headers or {})})
        self.disconnected = False
        self._source = source
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._body(send, _OPEN)
            await self._stream(receive, send)
        finally:
            await self._source.aclose()

    async def _stream(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def pump() -> None:
            nonlocal last
            async for piece in self._source:
                await self._body(send, piece)
                last = loop.time()

        async def keep_alive() -> None:
            while True:
                await asyncio.sleep(max(0.0, last + self._keep_alive - loop.time()))
                if loop.time() - last >= self._keep_alive:
                    await self._body(send, _ALIVE)
                    last_told()

        def last_told() -> None:
            nonlocal last
            last = loop.time()

        async with asyncio.TaskGroup() as group:
            pumping = group.create_task(pump())
            others = [
                group.create_task(keep_alive()),
                group.create_task(self._watch(receive, pumping)),
            ]
            pumping.add_done_callback(lambda _: [other.cancel() for other in others])
        if not self.disconnected:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self, receive: Receive, pumping: asyncio.Task[None]) -> None:
        await until_disconnected(receive)
        self.disconnected = True
        pumping.cancel()

    async def _body(self, send: Send, piece: bytes) -> None:
        message: Message = {"type": "http.response.body", "body": piece, "more_body": True}
        async with asyncio.timeout(STALLED):
            await send(message)
