"""The application that serves routers, and the document that describes them."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from insula import __version__
from insula.kit.json import encode
from insula.settings import Settings
from insula.web import errors, forms, health, pagination
from insula.web.auth import Authenticate
from insula.web.cors import Cors
from insula.web.edge import Edge
from insula.web.fast import Fast
from insula.web.incoming import Room
from insula.web.rate_limit import RateLimit
from insula.web.respond import json_answer

BODIES = 16
"""Largest bodies that fit into memory at once, of all requests."""
_SMALL = 512
"""The part of the largest body for which there is room at any time."""
_REFERENCE = "#/components/schemas/{model}"


class FieldErrorSchema(BaseModel):
    """One thing wrong with a request."""

    validation: str = Field(description="`body`, `query`, `path`, `header` or `check`.")
    code: str = Field(description="Stable, for programs.")
    message: str
    path: list[str]


class ErrorSchema(BaseModel):
    """The body of every answer other than 200."""

    status: int
    message: str
    errors: list[FieldErrorSchema] | None = None


_WORDS = {
    400: "What was sent cannot be used.",
    401: "The key is missing, wrong, expired or revoked.",
    403: "The key may not do this.",
    404: "There is no such thing, or it is another app's.",
    405: "The path does not take this method; see `Allow`.",
    409: "The thing is in a state that does not allow this.",
    413: "The body is over its limit.",
    415: "The content type is not one that is read here.",
    422: "The Idempotency-Key was used with another body.",
    429: "Too much at once; see `Retry-After`.",
    500: "Something went wrong inside the server.",
    503: "It cannot be done now; see `Retry-After`.",
}

Responses = dict[int | str, dict[str, Any]]


def none_given() -> list[Any]:
    """Return what a query's parameter is that may stand several times and does not stand at all.

    A function of ours, because the signature of a builtin is parsed again for each request.
    """
    return []


def error_responses(*statuses: int) -> Responses:
    """Document error answers of a route: ``responses=error_responses(400, 401)``.

    They refer to the schema, which the document has once: a model for each of a thousand answers
    would take FastAPI half a second.
    """
    schema = {"$ref": _REFERENCE.format(model=ErrorSchema.__name__)}
    content = {"application/json": {"schema": schema}}
    return {status: {"description": _WORDS[status], "content": content} for status in statuses}


READS = error_responses(400, 401, 404, 429, 500, 503)
"""What any read may answer besides 200."""

WRITES = error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503)
"""What any write may answer besides 200."""

_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["run", "step", "chunk"]},
        "data": {"type": "string", "description": "JSON."},
    },
    "required": ["event", "data"],
}

STREAM: dict[str, Any] = {"text/event-stream": {"schema": _EVENT}}
"""The content of a stream of a run's events."""

EVENTS: Responses = {
    200: {
        "description": "The answer, or where it is streamed, server-sent events.",
        "content": {"application/json": {}, **STREAM},
    }
}
"""Added to the responses of what may be streamed."""


class BodySchema(dict[str, Any]):
    """The schema of a body, empty until the document is asked for: nobody waits for fifty of them
    when a server starts.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        super().__init__()
        self._model = model

    def fill(self) -> None:
        """Make the schema."""
        self.update(self._model.model_json_schema(ref_template=_REFERENCE, by_alias=True))


def request_body(
    model: type[BaseModel], required: bool | None = None, example: object = None
) -> dict[str, Any]:
    """Document a body that ``web.body.payload`` reads: ``openapi_extra=request_body(Model)``.

    It may be left out if the model asks for nothing; ``required`` says otherwise. The ``example``
    is of a body in JSON.
    """
    if required is None:
        required = any(field.is_required() for field in model.model_fields.values())
    schema = BodySchema(model)
    content: dict[str, dict[str, Any]] = {
        media_type: {"schema": schema} for media_type in ("application/json", forms.MULTIPART)
    }
    if example is not None:
        content["application/json"]["example"] = example
    return {"requestBody": {"required": required, "content": content}}


def create_application(
    routers: Sequence[APIRouter],
    authenticate: Authenticate,
    checks: Mapping[str, health.Check],
    settings: Settings,
    *,
    registry: CollectorRegistry | None = None,
    routes: Sequence[Route] = (),
) -> FastAPI:
    """Build the application: routers, health, errors, middleware; ``routes`` are tried first."""
    registry = registry if registry is not None else CollectorRegistry()
    app = FastAPI(
        title="Insula",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.authenticate = authenticate
    app.state.settings = settings
    app.state.registry = registry
    app.state.room = Room(BODIES * settings.body_max, settings.body_max // _SMALL)
    app.router.routes.extend(health.routes(checks, registry))
    app.router.routes.append(Route("/openapi.json", _serve_document(app), methods=["GET"]))
    for router in routers:
        app.router.routes.extend(router.routes)
    errors.install(app)
    if routes:
        app.add_middleware(Fast, routes=routes)
    _add_middleware(app, settings, registry)
    return app


def _add_middleware(app: FastAPI, settings: Settings, registry: CollectorRegistry) -> None:
    """Innermost first: rate limit, error boundary, edge, CORS."""
    if settings.rate_limit is not None:
        app.add_middleware(
            RateLimit, per_minute=settings.rate_limit, trusted=settings.trusted_proxies
        )
    app.add_middleware(errors.ErrorBoundary)
    app.add_middleware(Edge, registry=registry)
    app.add_middleware(
        Cors,
        origins=settings.cors_origins,
        exposed=[*pagination.HEADERS, "Retry-After", "Content-Disposition"],
    )


def _serve_document(app: FastAPI) -> Callable[[Request], Any]:
    document: list[bytes] = []
    making = asyncio.Lock()

    async def openapi(_: Request) -> Response:
        async with making:
            if not document:  # a second's work, and anybody may ask for it
                document.append(await asyncio.to_thread(lambda: encode(describe(app))))
        return json_answer(document[0])

    return openapi


def describe(app: FastAPI) -> dict[str, Any]:
    """Make the OpenAPI document: FastAPI's, with our bodies' models and without its own 422."""
    for context in iter_route_contexts(app.routes):
        _fill_bodies(getattr(context.original_route, "openapi_extra", None))
    document = get_openapi(
        title=app.title,
        version=app.version,
        description="Paths below `/apps/{app_id}`; `c` stands for the key's own app.",
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    _hoist(ErrorSchema.model_json_schema(ref_template=_REFERENCE), schemas)
    for schema in schemas.values():
        _drop_nulls(schema)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document.get("paths", {}).items():
        for operation in operations.values():
            if isinstance(operation, dict):
                _finish_operation(operation, schemas)
                _add_path_parameters(path, operation)
                if path.startswith("/apps"):
                    operation.setdefault("security", [{"key": []}])
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    return document


def _fill_bodies(documented: Any) -> None:
    if isinstance(documented, BodySchema):
        documented.fill()
    elif isinstance(documented, dict):
        for inner in documented.values():
            _fill_bodies(inner)


def _drop_nulls(schema: dict[str, Any]) -> None:
    """Say of an answer's member that need not be there that it is never null: what there is not is
    left out. One that is marked ``nullable`` may be both, and a constant is always there."""
    required = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        if "const" in member and "default" in member:
            schema["required"] = required = [*required, name]
        options = [one for one in member.get("anyOf", ()) if one != {"type": "null"}]
        if member.pop("nullable", False) or name in required or not options:
            continue
        member.pop("default", None)
        del member["anyOf"]
        member.update(options[0] if len(options) == 1 else {"anyOf": options})


def _finish_operation(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    unprocessable = operation.get("responses", {}).get("422", {})
    if "HTTPValidationError" in str(unprocessable):
        del operation["responses"]["422"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = content.get("schema", {})
        if "$defs" in schema or "title" in schema:
            content["schema"] = _hoist(schema, schemas)


def _add_path_parameters(path: str, operation: dict[str, Any]) -> None:
    """Name the path's parameters that a handler reads from the request itself, ``app_id`` first."""
    parameters: list[dict[str, Any]] = operation.setdefault("parameters", [])
    named = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
    missing = [name for name in re.findall(r"{(\w+)(?::\w+)?}", path) if name not in named]
    parameters[:0] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in missing
    ]


def _hoist(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Move a body's schema and its definitions to the components; return a reference."""
    own = {name: value for name, value in schema.items() if name != "$defs"}
    definitions: dict[str, Any] = dict(schema.get("$defs", {}))
    title = str(own.get("title", "Body"))
    if "$ref" not in own:
        definitions[title] = own
    renamed = {
        name: f"{name}-Input"
        for name, value in definitions.items()
        if name in schemas and schemas[name] != value
    }
    for name, value in definitions.items():
        schemas[renamed.get(name, name)] = _refer(value, renamed)
    reference = own.get("$ref") or _REFERENCE.format(model=title)
    return {"$ref": _refer(reference, renamed)}


def _refer(value: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _refer(inner, renamed) for name, inner in value.items()}
    if isinstance(value, list):
        return [_refer(inner, renamed) for inner in value]
    prefix = _REFERENCE.format(model="")
    if isinstance(value, str) and value.startswith(prefix):
        name = value.removeprefix(prefix)
        return prefix + renamed.get(name, name)
    return value
