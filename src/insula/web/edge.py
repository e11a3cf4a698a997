"""The outermost layer: HEAD and OPTIONS, headers of every answer, and the clean-up after it."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from insula.web.auth import unknown
from insula.web.errors import allowed_methods, answer, render
from insula.web.forms import OPEN_PARTS
from insula.web.incoming import leave_room, receive_message

_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_API = ((b"cache-control", b"no-store"), (b"content-security-policy", b"default-src 'none'"))
DRAINED = 64 * 1024 * 1024
"""Bytes of a body that nobody wanted which are still read, to keep the connection."""
_DRAIN_SECONDS = 2.0
_TAKEN_WITHIN = 60.0
"""Seconds within which a client takes a piece of a long answer."""
_LINGER_SECONDS = 30.0
"""How long the rest of a large body is passed over once its answer is sent."""
_SILENT_SECONDS = 5.0


class _Body:
    """A request's body, of which a handler may leave some unread.

    The server closes a connection whose request it has not read, and the client, which has its
    answer, sends the next request into the void. So the rest is read, or the client is told.
    """

    def __init__(self, receive: Receive, scope: Scope) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        self._receive = receive
        self._unread = True
        self._announced = int(length[:20]) if length.isdigit() else None
        self._asks = b"100-continue" in headers.get(b"expect", b"").lower()
        self._size = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if message["type"] == "http.request":  # else it broke off, and has no end
            self._unread = self._unread and message.get("more_body", False)
        return message

    async def finish(self, head: Message) -> None:
        """Read the rest before an answer's head is sent; if it is too much, say so in the head."""
        if self._asks and not self._size:
            self._unread, closes = False, True  # it was never asked for, and does not come
        else:
            await self._drain()
            closes = self._unread
        if closes:
            head["headers"].append((b"connection", b"close"))

    async def _drain(self) -> None:
        if self._announced is not None and self._announced - self._size > DRAINED:
            return
        most = self._size + DRAINED
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._unread and self._size <= most:
                    await receive_message(self.receive)

    async def outlast(self, last: Message, send: Send) -> Message:
        """Send the last of an answer while its client may still be sending what it has announced,
        and pass that over: it would find a reset instead. Return what is left to send."""
        if not self._unread or self._announced is None:
            return last
        await send({**last, "more_body": True})
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self._unread:
                    async with asyncio.timeout(_SILENT_SECONDS):
                        await receive_message(self.receive)
        return {"type": "http.response.body", "body": b"", "more_body": False}


def _has_body(scope: Scope) -> bool:
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )


HEAD = "insula.head"
"""Stands in the scope of a HEAD, which is answered as a GET is: it must have no effect."""


class Edge:
    """Middleware around everything but CORS."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self._requests = Counter(
            "insula_http_requests", "Requests answered.", ("method", "status"), registry=registry
        )
        self._counted: dict[tuple[str, int], Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        body = _Body(receive, scope) if _has_body(scope) else None
        if body is not None:
            receive = body.receive

        out = self._out(method, body, send)
        app = self.app
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            app = self._nul(Request(scope))
        try:
            if method == "HEAD":
                await _head(app, scope, receive, out)
            elif method == "OPTIONS":
                await self._options(Request(scope))(scope, receive, out)
            else:
                await app(scope, receive, out)
        finally:
            for part in scope.pop(OPEN_PARTS, ()):
                part.close()
            leave_room(scope)

    def _out(self, method: str, body: _Body | None, send: Send) -> Send:
        """Return what an answer is sent with: it minds the rest of the request."""

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                if body is not None:
                    await body.finish(message)
                self._finish_head(method, message)
            elif body is not None and not message.get("more_body", False):
                message = await body.outlast(message, send)
            if not message.get("more_body", False):
                await send(message)
                return
            try:
                async with asyncio.timeout(_TAKEN_WITHIN):
                    await send(message)
            except TimeoutError:  # whoever reads nothing must not hold what it is read from
                raise ClientDisconnect from None

        return out

    def _finish_head(self, method: str, message: Message) -> None:
        headers = message["headers"]
        present = {name for name, _ in headers}
        headers.extend(pair for pair in _SECURITY if pair[0] not in present)
        if (b"content-type", b"application/json") in headers:
            headers.extend(pair for pair in _API if pair[0] not in present)
        counted = self._counted.get((method, message["status"]))
        if counted is None:
            named = method if method in ("GET", "POST", "PATCH", "DELETE", "HEAD") else "other"
            counted = self._requests.labels(named, str(message["status"]))
            if named == method:
                self._counted[(method, message["status"])] = counted
        counted.inc()

    def _options(self, request: Request) -> Response:
        methods = allowed_methods(request)
        if not methods:
            return answer(request, HTTPStatus.NOT_FOUND, "There is no such path.")
        return Response(
            b"null", headers={"Allow": ", ".join(methods)}, media_type="application/json"
        )

    def _nul(self, request: Request) -> Response:
        if "\0" in request.scope["path"]:
            return render(unknown(), request)
        return answer(request, HTTPStatus.BAD_REQUEST, "The query holds a NUL character.")


async def _head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as GET would, without the body; a stream is told that its client has left."""
    told = False

    async def only_head(message: Message) -> None:
        nonlocal told
        if message["type"] == "http.response.start":
            await send(message)
        elif not told:
            told = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def leave() -> Message:
        return {"type": "http.disconnect"} if told else await receive()

    await app({**scope, "method": "GET", HEAD: True}, leave, only_head)
