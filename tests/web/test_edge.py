"""HEAD, OPTIONS, CORS, headers, NUL characters, figures, and the clean-up after an answer."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response
from tests.web.application import application, authenticate, client

from insula.settings import load_settings
from insula.web.body import payload
from insula.web.forms import UploadedPart
from insula.web.openapi import create_application
from insula.web.respond import null_answer


async def test_head_is_get_without_its_body(http: httpx.AsyncClient) -> None:
    got, head = await http.get("/apps/c/things"), await http.head("/apps/c/things")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["pagination-count"] == "41"
    assert (await http.head("/nowhere")).status_code == 404


async def test_options_names_the_methods(http: httpx.AsyncClient) -> None:
    answer = await http.options("/apps/c/things")
    assert (answer.status_code, answer.json()) == (200, None)
    assert "POST" in answer.headers["allow"]
    assert (await http.options("/nowhere")).status_code == 404


async def test_every_answer_says_how_to_treat_it(http: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nowhere", "/apps/c/boom", "/apps/c/things"):
        headers = (await http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("pieces", "closes"), [(0, False), (3, False), (99, True)])
async def test_a_body_that_nobody_wants_is_read_all_the_same(pieces: int, closes: bool) -> None:
    piece = b"x" * (1024 * 1024)
    body = [{"type": "http.request", "body": piece, "more_body": True}] * pieces
    body.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        return body.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/nowhere", "raw_path": b"/nowhere"}
    scope |= {"query_string": b"", "headers": headers, "scheme": "http", "root_path": ""}
    await application()(scope, receive, send)
    assert sent[0]["status"] == 404
    assert ((b"connection", b"close") in sent[0]["headers"]) is closes
    assert (len(body) > 1) is closes


@pytest.mark.parametrize("told", [True, False])
async def test_a_body_that_breaks_off_is_answered(told: bool) -> None:
    """Its client may be there: of chunks that cannot be read the server says no more than that."""
    body: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        if body:
            return body.pop()
        if told:
            return {"type": "http.disconnect"}
        raise asyncio.CancelledError

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"transfer-encoding", b"chunked"), (b"authorization", b"Bearer mine")]
    scope = {"type": "http", "method": "POST", "path": "/apps/c/things", "headers": headers}
    scope |= {"query_string": b"", "raw_path": b"", "scheme": "http", "root_path": ""}
    await application()(scope, receive, send)
    assert sent[0]["status"] == 400
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"broke off" in sent[1]["body"]


async def test_nul_in_a_query_is_refused(http: httpx.AsyncClient) -> None:
    for ask in (http.get, http.head):
        assert (await ask("/apps/c/things?search=a%00b")).status_code == 400
        assert (await ask("/apps/c/things%00")).status_code == 404


async def test_pages_of_any_origin_may_read_the_headers(http: httpx.AsyncClient) -> None:
    page = {"origin": "https://example.org"}
    answer = await http.get("/apps/c/things", headers=page)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "pagination-count" in answer.headers["access-control-expose-headers"]
    refused = await http.post("/apps/c/things", json={"name": 1}, headers=page)
    assert refused.headers["access-control-allow-origin"] == "*"
    asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "x-a"}
    preflight = await http.options("/apps/c/things", headers={**page, **asked})
    assert preflight.status_code == 200
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "x-a"
    assert "access-control-allow-credentials" not in preflight.headers


async def test_only_the_origins_that_are_set() -> None:
    asked = {"access-control-request-method": "POST"}
    async with client(application(cors_origins="https://a.example,https://b.example")) as http:
        for origin, status in (("https://b.example", 200), ("https://c.example", 400)):
            page = {"origin": origin}
            preflight = await http.options("/apps/c/things", headers={**page, **asked})
            assert preflight.status_code == status
            answer = await http.get("/apps/c/things", headers=page)
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if status == 200 else None)


async def test_requests_are_counted(http: httpx.AsyncClient) -> None:
    await http.get("/nowhere")
    await http.request("BREW", "/nowhere")
    text = (await http.get("/metrics")).text
    assert 'insula_http_requests_total{method="GET",status="404"} 1.0' in text
    assert 'insula_http_requests_total{method="other",status="404"} 1.0' in text


class Files(BaseModel):
    files: list[UploadedPart]


@pytest.mark.parametrize("size", [10, 2 * 1024 * 1024])
async def test_file_parts_are_closed_after_the_answer(size: int) -> None:
    kept: list[Any] = []
    router = APIRouter()

    @router.post("/keep", response_model=None)
    async def keep(request: Request) -> Response:
        kept.extend((await payload(request, Files)).files)
        assert not any(part.file.closed for part in kept)
        return null_answer()

    app = create_application([router], authenticate, {}, load_settings())
    async with client(app) as http:
        answer = await http.post("/keep", files=[("files", ("a", b"x" * size))] * 2)
    assert answer.status_code == 200
    assert [part.size for part in kept] == [size, size]
    assert all(part.file.closed for part in kept)
