"""Server-sent events: frames of bytes, kept alive, ended when either side is done."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from insula.errors import Unavailable
from insula.kit.tasks import forget_frames
from insula.web.incoming import until_disconnected

KEEP_ALIVE = 10.0
"""Seconds of silence after which a comment is sent."""
STALLED = 30.0
"""Seconds that a client may leave a frame unread before its stream is closed."""

__all__ = ["KEEP_ALIVE", "STALLED", "EventStream", "frame", "until_disconnected"]

log = structlog.get_logger(__name__)

_OPEN = b": open\n\n"
_ALIVE = b": alive\n\n"


def frame(event: str, data: bytes, identifier: str | int | None = None) -> bytes:
    """Make one event; line breaks inside ``data`` become several ``data`` lines."""
    head = b"" if identifier is None else b"id: %s\n" % str(identifier).encode()
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.splitlines())
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode(), data)


class EventStream(Response):
    """Answers with the frames of ``source``, which is closed however the stream ends.

    When the client goes away the source is cancelled where it waits and ``disconnected`` is true.
    A client that is there and does not read is disconnected, and may resume; then ``stalled`` is
    true.
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
        self.stalled = False
        self._source = source
        self._keep_alive = keep_alive
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._body(send, _OPEN)
            await self._stream(receive, send)
        finally:
            await self._source.aclose()

    async def _stream(self, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            pumping = group.create_task(self._pump(send))
            others = (
                group.create_task(self._stay_alive(send)),
                group.create_task(self._watch(receive, pumping)),
            )
            await asyncio.wait([pumping])
            for other in others:
                other.cancel()
        if pumping.cancelled():
            forget_frames(pumping)
        if not self.disconnected:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        try:
            async for piece in self._source:
                await self._body(send, piece)
        except Unavailable as error:
            # It ends without its last event; the reader goes on behind the last one it has.
            log.warning("stream.broken_off", reason=error.message)

    async def _stay_alive(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silent = loop.time() - self._sent_at
            if silent >= self._keep_alive:
                await self._body(send, _ALIVE)
            else:
                await asyncio.sleep(self._keep_alive - silent)

    async def _watch(self, receive: Receive, pumping: asyncio.Task[None]) -> None:
        await until_disconnected(receive)
        self.disconnected = True
        pumping.cancel()

    async def _body(self, send: Send, piece: bytes) -> None:
        """Send a piece; a client that leaves it unread is disconnected."""
        message: Message = {"type": "http.response.body", "body": piece, "more_body": True}
        try:
            async with asyncio.timeout(STALLED):
                await send(message)
        except TimeoutError:
            self.stalled = True
            raise ClientDisconnect from None
        self._sent_at = asyncio.get_running_loop().time()
