"""Cross-origin calls from web pages: which origins, and which answer headers they may read.

Written here because the library's middleware parses every request's headers anew, also those
that no browser sent. There are no cookies, so credentials are never allowed.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from insula.web.errors import answer

_METHODS = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_MAX_AGE = "600"


class Cors:
    """Middleware, outermost: answers preflights and marks the answers to cross-origin calls."""

    def __init__(self, app: ASGIApp, origins: Sequence[str], exposed: Sequence[str]) -> None:
        self.app = app
        self._every = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)
        self._exposed = ", ".join(exposed).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _origin(scope)
        if origin is None:
            await self.app(scope, receive, send)
            return
        allowed = self._every or origin in self._origins
        marks = self._marks(origin) if allowed else []

        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].extend(marks)
            await send(message)

        headers = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._preflight(scope, headers, allowed)(scope, receive, mark)
        else:
            await self.app(scope, receive, mark)

    def _marks(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        if self._every:
            first = [(b"access-control-allow-origin", b"*")]
        else:
            first = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        return [*first, (b"access-control-expose-headers", self._exposed)]

    def _preflight(self, scope: Scope, headers: Headers, allowed: bool) -> Response:
        if not allowed:
            message = "This origin may not call the API. The setting is INSULA_CORS_ORIGINS."
            return answer(HTTPConnection(scope), 400, message)
        requested = headers.get("access-control-request-headers", "authorization, content-type")
        return Response(
            b"null",
            headers={
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": requested[:2000],
                "Access-Control-Max-Age": _MAX_AGE,
            },
            media_type="application/json",
        )


def _origin(scope: Scope) -> bytes | None:
    if scope["type"] == "http":
        for name, value in scope["headers"]:
            if name == b"origin":
                return bytes(value)
    return None
