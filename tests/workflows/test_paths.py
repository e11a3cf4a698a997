"""The words that are routes of their own are never taken for a workflow's id."""

import itertools

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from insula.workflows.paths import DISCOVER, WORKFLOW, WORKFLOWS


def _router(*paths: str) -> APIRouter:
    routes = APIRouter()
    for path in paths:
        routes.add_api_route(path, _teller(path), methods=["GET"])
    return routes


def _teller(path: str):  # type: ignore[no-untyped-def]  # FastAPI reads the inner signature
    async def tell() -> str:
        return path

    return tell


async def _route(app: FastAPI, path: str) -> str | None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path)
    return answer.json() if answer.status_code == 200 else None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_discover_wins_whatever_the_order(order: tuple[int, ...]) -> None:
    own = _router(WORKFLOW, WORKFLOW + "/runs", WORKFLOW + "/versions/{version}")
    catalogue = _router(DISCOVER, DISCOVER + "/{workflow_id}", DISCOVER + "/{workflow_id}/runs")
    files = _router(WORKFLOWS + "/import")
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    for place in order:
        app.include_router((own, catalogue, files)[place])
    base = "/apps/c/workflows"
    assert await _route(app, f"{base}/discover") == DISCOVER
    assert await _route(app, f"{base}/discover/work_1") == DISCOVER + "/{workflow_id}"
    assert await _route(app, f"{base}/discover/work_1/runs") == DISCOVER + "/{workflow_id}/runs"
    assert await _route(app, f"{base}/discover/runs") == DISCOVER + "/{workflow_id}"
    assert await _route(app, f"{base}/discover/versions/1") is None
    assert await _route(app, f"{base}/import") == WORKFLOWS + "/import"
    assert await _route(app, f"{base}/discovered") == WORKFLOW
    assert await _route(app, f"{base}/work_1") == WORKFLOW
    assert await _route(app, f"{base}/work_1/runs") == WORKFLOW + "/runs"
