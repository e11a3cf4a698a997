"""Routes that are made when they are asked for."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from insula.web.respond import json_answer
from insula.web.routing import LateRoute, create_router

made: list[str] = []


class Watched(LateRoute):
    """Notes when it is made."""

    def get_route_handler(self):  # type: ignore[no-untyped-def]  # as FastAPI's
        made.append(self.path)
        return super().get_route_handler()


@pytest.fixture
def application() -> FastAPI:
    made.clear()
    router = create_router("things")
    router.route_class = Watched

    @router.get("/things/{number}")
    async def get_thing(number: int) -> Response:
        return json_answer({"number": number})

    @router.post("/apps/c/workflows/discover/{workflow_id}/runs")
    async def start(workflow_id: str) -> Response:
        return json_answer({"workflow": workflow_id})

    app = FastAPI()
    app.router.routes.extend(router.routes)
    return app


def test_a_route_that_another_thread_is_making_is_waited_for(
    application: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {getattr(route, "path", ""): route for route in application.router.routes}
    route: Any = named["/things/{number}"]
    making, goes_on = threading.Event(), threading.Event()
    handler = Watched.get_route_handler

    def slow(self: Watched) -> Any:
        making.set()
        assert goes_on.wait(10)
        return handler(self)

    monkeypatch.setattr(Watched, "get_route_handler", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(getattr, route, "app")
        assert making.wait(10)
        second = pool.submit(getattr, route, "app")
        goes_on.set()
        assert first.result(10) is second.result(10)
    assert made == ["/things/{number}"]
    with pytest.raises(AttributeError, match="no colour"):
        _ = route.colour


async def test_a_route_is_made_with_the_first_request_and_once(application: FastAPI) -> None:
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/elsewhere")).status_code == 404
        assert made == []
        assert (await client.get("/things/7")).json() == {"number": 7}
        assert (await client.get("/things/8")).json() == {"number": 8}
        assert (await client.get("/things/x")).status_code == 422
        assert made == ["/things/{number}"]
        assert (await client.delete("/things/7")).status_code == 405


async def test_the_document_makes_all(application: FastAPI) -> None:
    paths = application.openapi()["paths"]
    assert len(made) == 2
    thing = paths["/things/{number}"]["get"]
    assert (thing["operationId"], thing["tags"]) == ("get_thing", ["things"])
    assert thing["parameters"][0]["schema"]["type"] == "integer"
    started = paths["/apps/c/workflows/discover/{workflow_id}/runs"]["post"]
    assert started["operationId"] == "discover_start"


def test_what_no_route_has_is_an_error(application: FastAPI) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = application.routes[-1].nothing  # type: ignore[attr-defined]  # that it has not
