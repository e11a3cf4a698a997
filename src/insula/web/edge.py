"""The outermost layer: HEAD and OPTIONS, headers of every answer, and the clean-up after it."""

from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from insula.web.auth import unknown
from insula.web.errors import allowed_methods, answer, render
from insula.web.forms import OPEN_PARTS

_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_API = ((b"cache-control", b"no-store"), (b"content-security-policy", b"default-src 'none'"))


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

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._finish_head(method, message)
            await send(message)

        try:
            if method == "HEAD":
                await self._head(scope, receive, out)
            elif method == "OPTIONS":
                await self._options(Request(scope))(scope, receive, out)
            elif "\0" in scope["path"] or b"%00" in scope["query_string"]:
                await self._nul(Request(scope))(scope, receive, out)
            else:
                await self.app(scope, receive, out)
        finally:
            for part in scope.pop(OPEN_PARTS, ()):
                part.close()

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

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
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

        await self.app({**scope, "method": "GET"}, leave, only_head)

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
