"""The one place where errors become answers: the contract's body, or RFC 9457 when asked for."""

import secrets
import traceback
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from insula.errors import FieldError, InsulaError
from insula.kit.json import encode

PROBLEM = "application/problem+json"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    bytes: "bytes",
}

log = structlog.get_logger("insula.web")


def kind(value: object) -> str:
    """Name the kind of a value for an error message; never the value, which may be a secret."""
    return _KINDS.get(type(value), "something else")


def field_errors(
    problems: Sequence[ErrorDetails], validation: str = "body", skip: int = 0
) -> tuple[FieldError, ...]:
    """Turn pydantic's problems into ours; ``skip`` leading parts of the path are dropped."""
    return tuple(_field_error(problem, validation, skip) for problem in problems[:100])


def _field_error(problem: ErrorDetails, validation: str, skip: int) -> FieldError:
    message = problem["msg"].removeprefix("Value error, ")
    if _is_of_kind(problem):
        message = f"{message} (got {kind(problem['input'])})"
    path = tuple(clean(str(part)) for part in problem["loc"][skip:])
    return FieldError(path, problem["type"], clean(message), validation)


def _is_of_kind(problem: ErrorDetails) -> bool:
    """Say whether the kind of what came is what is wrong with it. Of a number that is out of its
    range, or of a parameter, which always comes as text, the kind says nothing."""
    if problem["type"] in ("literal_error", "enum"):
        return not isinstance(problem["input"], str)
    return problem["type"].endswith("_type")


def clean(text: str) -> str:
    """Make a text safe to send: bounded, and without lone surrogates."""
    return text[:1000].encode("utf-8", "replace").decode()


def render(error: InsulaError, request: HTTPConnection) -> Response:
    """Answer an error in the form that the request asks for."""
    headers = {"Cache-Control": "no-store"}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="insula"'
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return answer(request, error.status, error.message, error.errors, headers)


def answer(
    request: HTTPConnection,
    status: int,
    message: str,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """Build the body of an error: ``{status, message, errors?}``, or a problem document."""
    message = clean(message)
    facts: dict[str, Any] = {"status": status, "message": message}
    media_type = "application/json"
    if _wants_problem(request.scope):
        media_type = PROBLEM
        title = HTTPStatus(status).phrase
        facts = {"type": "about:blank", "title": title, "status": status, "detail": message}
    if errors:
        facts["errors"] = [
            {
                "validation": entry.validation,
                "code": entry.code,
                "message": clean(entry.message),
                "path": [clean(part) for part in entry.path],
            }
            for entry in errors
        ]
    return Response(encode(facts), status, headers=headers, media_type=media_type)


def _wants_problem(scope: Scope) -> bool:
    return any(
        name == b"accept" and PROBLEM.encode() in value.lower() for name, value in scope["headers"]
    )


def install(app: FastAPI) -> None:
    """Register the handlers of every error that a route can raise."""
    app.add_exception_handler(InsulaError, _insula)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


async def _insula(request: Request, error: Exception) -> Response:
    assert isinstance(error, InsulaError)
    return render(error, request)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    where = str(problems[0]["loc"][0]) if problems and problems[0]["loc"] else "body"
    errors = field_errors(problems, where, skip=1)
    named = ", ".join(".".join(entry.path) for entry in errors[:3])
    return answer(request, 400, f"The request is not valid: {named or 'see errors'}.", errors)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(allowed_methods(request))
        message = f"This path does not take {clean(request.method)}; it takes {headers['Allow']}."
    elif error.status_code == HTTPStatus.NOT_FOUND:
        message = "There is no such path. See /openapi.json for those there are."
    else:
        message = str(error.detail)
    return answer(request, error.status_code, message, (), headers)


def allowed_methods(request: HTTPConnection) -> list[str]:
    """List the methods that the path takes."""
    scope = dict(request.scope)
    allowed = ["OPTIONS"]
    for method in _METHODS[:-1]:
        scope["method"] = "GET" if method == "HEAD" else method
        routes = request.app.router.routes
        if any(route.matches(scope)[0] is Match.FULL for route in routes):
            allowed.append(method)
    return allowed if len(allowed) > 1 else []


class ErrorBoundary:
    """Middleware, outermost: answers what no handler answered, and logs it without secrets."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if all(isinstance(leaf, ClientDisconnect) for leaf in _leaves(error)):
                return
            if started:
                _log_broken(error, scope)
                raise
            await self._unexpected(error, HTTPConnection(scope))(scope, receive, send)

    def _unexpected(self, error: Exception, request: HTTPConnection) -> Response:
        """An error of ours that came out of a task group is that error; all else is a 500."""
        leaves = list(_leaves(error))
        known = [leaf for leaf in leaves if isinstance(leaf, InsulaError)]
        if known and len(known) == len(leaves):
            return render(known[0], request)
        reference = secrets.token_hex(6)
        log.error(
            "request_failed",
            reference=reference,
            method=request.scope["method"],
            path=_where(request.scope),
            trace=_trace(error),
        )
        message = f"Something went wrong inside the server. The log has it as {reference}."
        return answer(request, 500, message)


def _log_broken(error: Exception, scope: Scope) -> None:
    log.error("answer_broken", path=_where(scope), trace=_trace(error))


def _where(scope: Scope) -> str:
    """Return the path for the log: as the route has it, for what stands in its place may be the
    token of a hook, or the id of an upload link, with which anybody may call."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        return template
    head, slash, _ = scope["path"][1:].partition("/")
    return f"/{clean(head[:40])}{'/…' if slash else ''}"


def _trace(error: Exception) -> str:
    """The traceback as plain text: local variables, which hold keys and bodies, stay out."""
    return "".join(traceback.format_exception(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
