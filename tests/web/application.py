"""A small application on the shared web layer, and a client that calls it in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from insula.errors import Conflict, Unavailable
from insula.settings import load_settings
from insula.web.auth import Principal, Reader, Writer
from insula.web.body import payload
from insula.web.fields import ANY_TEXT, Moment
from insula.web.forms import UploadedPart
from insula.web.health import Check
from insula.web.idempotency import read_key
from insula.web.openapi import READS, WRITES, create_application, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer

KEYS = {
    "mine": Principal("app_1", "key_1"),
    "reads": Principal("app_1", "key_2", read_only=True),
    "theirs": Principal("app_2", "key_3"),
}


class Inner(BaseModel):
    depth: int
    word: str | None = None


class Thing(BaseModel):
    """A body with a field of every kind."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    count: int = 0
    share: float | None = None
    on: bool = False
    input: Any = None
    inner: Inner | None = None
    tags: list[str] = []
    free: Annotated[str | None, ANY_TEXT] = None
    either: int | Inner | None = None
    at: Moment | None = None
    document: UploadedPart | None = None
    documents: list[UploadedPart] = []


class Made(BaseModel):
    id: str


def shown(value: Any) -> Any:
    """Show a payload as JSON, files by their content."""
    if isinstance(value, UploadedPart):
        return [value.filename, value.content_type, value.size, value.file.read().decode()]
    if isinstance(value, BaseModel):
        return {name: shown(inner) for name, inner in value if name in value.model_fields_set}
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    return value


def things() -> APIRouter:
    router = APIRouter()

    @router.post(
        "/apps/{app_id}/things",
        response_model=Made,
        responses=WRITES,
        openapi_extra=request_body(Thing),
    )
    async def make(request: Request, _: Writer) -> Response:
        body = await payload(request, Thing)
        key = read_key(request)
        answer = {"body": shown(body), "hash": key.body_hash.hex() if key else None}
        return json_answer(answer)

    @router.get("/apps/{app_id}/things", response_model=list[Made], responses=READS)
    async def read(_: Reader, page: Paging) -> Response:
        return list_answer([{"id": "t"}], page, 41, next_cursor={"id": "t"})

    @router.delete("/apps/{app_id}/things/{thing_id}", responses=WRITES, response_model=None)
    async def remove(_: Writer) -> Response:
        return null_answer()

    _add_failing(router)
    return router


def _add_failing(router: APIRouter) -> None:
    @router.get("/apps/{app_id}/boom", include_in_schema=False)
    async def boom(_: Reader) -> Response:
        password = "hunter2-in-a-local-variable"
        raise RuntimeError(f"lost the plot of {len(password)}")

    @router.get("/apps/{app_id}/grouped", include_in_schema=False)
    async def grouped() -> Response:
        raise ExceptionGroup("tasks", [Conflict("It is running.")])

    @router.get("/apps/{app_id}/later", include_in_schema=False)
    async def later() -> Response:
        raise Unavailable("Not now.", retry_after=3)


async def authenticate(key: str) -> Principal | None:
    return KEYS.get(key)


def application(checks: dict[str, Check] | None = None, **settings: Any) -> FastAPI:
    given = {"body_max": 64 * 1024, "file_max": 256 * 1024, **settings}
    return create_application([things()], authenticate, checks or {}, load_settings(**given))


@asynccontextmanager
async def client(app: FastAPI, key: str | None = "mine") -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://insula", headers=headers
    ) as opened:
        yield opened


Send = Callable[..., Awaitable[httpx.Response]]
