"""Two apps with the same names, and a third that guesses: what is another's does not exist.

The routes are those that the server itself describes.
"""

import re
from typing import Any

import pytest

from tests.acceptance.harness import Answer, Caller, Clients
from tests.acceptance.things import BODIES, UNKNOWN, WORDS, Things

DATABASES = ("sqlite", "postgres")

NOT_OURS = {"/files/{file_id}/content", "/public/apps/files/uploads/{file_upload_id}"}
"""Opened by a signature, or by an address that cannot be guessed, and not by a key."""
ADMINS = {("PATCH", "/apps/{app_id}"), ("DELETE", "/apps/{app_id}")}


Route = tuple[str, str]


@pytest.fixture
async def routes(callers: Clients) -> list[Route]:
    anybody = Caller(callers.session, callers.served, "", "")
    described = await anybody.ok("GET", "/openapi.json")
    return [
        (method.upper(), path)
        for path, methods in described["paths"].items()
        for method in methods
        if "{" in path and path not in NOT_OURS
    ]


async def _ask(caller: Caller, route: Route, ids: dict[str, str]) -> Answer:
    method, template = route
    path = re.sub(r"{(\w+)}", lambda match: ids[match[1]], template)
    last = template.rpartition("/")[2]
    body = None if method == "GET" else BODIES.get(last, {"name": "x"})
    return await caller.ask(method, path, body)


async def test_what_is_anothers_does_not_exist(callers: Clients, routes: list[Route]) -> None:
    acme = await Things(await callers.app("Acme")).make()
    globex = await Things(await callers.app("Acme")).make()
    stranger = await callers.app("Acme")
    before = await _seen(acme)
    ours = {"app_id": "c"}
    guessing = 0
    for route in routes:
        if set(re.findall(r"{(\w+)}", route[1])) == {"app_id"}:
            continue
        guessing += 1
        unknown = await _ask(stranger, route, {**acme.unknown(), **ours})
        for caller in (stranger, globex.caller):
            found = await _ask(caller, route, {**acme.ids, **ours})
            assert (found.status, found.body) == (unknown.status, unknown.body), route
        assert unknown.status == 404, (route, unknown.body)
    assert guessing > 20
    assert await _seen(acme) == before


async def test_another_app_does_not_exist(callers: Clients, routes: list[Route]) -> None:
    acme = await Things(await callers.app("Acme")).make()
    stranger = await callers.app("Acme")
    before = await _seen(acme)
    bodies = set()
    for route in routes:
        for app_id in (acme.caller.app_id, "app_" + UNKNOWN):
            answer = await _ask(stranger, route, {**acme.ids, "app_id": app_id})
            assert answer.status == (403 if route in ADMINS else 404), (route, answer.body)
            bodies.add((answer.status, answer.body))
    assert len(bodies) == 2
    assert await _seen(acme) == before


async def test_half_a_path_of_ones_own_leads_nowhere(callers: Clients, routes: list[Route]) -> None:
    """An own workflow with another's run, an own record in another's collection."""
    acme = await Things(await callers.app("Acme")).make()
    globex = await Things(await callers.app("Globex")).make()
    for route in routes:
        names = set(re.findall(r"{(\w+)}", route[1])) - {"app_id", *WORDS}
        if len(names) < 2 or "caller_app_id" in names:
            continue
        for foreign in names:
            mixed = {**globex.ids, foreign: acme.ids[foreign], "app_id": "c"}
            nothing = {**globex.ids, foreign: acme.unknown()[foreign], "app_id": "c"}
            found = await _ask(globex.caller, route, mixed)
            unknown = await _ask(globex.caller, route, nothing)
            assert (found.status, found.body) == (unknown.status, unknown.body), (route, foreign)
            assert unknown.status == 404


async def test_lists_hold_only_ones_own(callers: Clients) -> None:
    acme = await Things(await callers.app("Acme")).make()
    globex = await Things(await callers.app("Acme")).make()
    for things in (acme, globex):
        seen = await _seen(things)
        assert {run["app_id"] for run in seen["runs?identifier=same"]} == {things.caller.app_id}
        assert [w["id"] for w in seen["workflows"]] == [things.ids["workflow_id"]]
        assert [file["id"] for file in seen["files"]] == [things.ids["file_id"]]
        assert seen["workflows/discover"] == []
        for path, name in (("connections", "connection_id"), ("schedules", "schedule_id")):
            assert [one["id"] for one in seen[path]] == [things.ids[name]]
        for path, name in (("collections", "collection_id"), ("webhooks", "webhook_id")):
            assert [one["id"] for one in seen.get(path, [])] == [
                things.ids[name] for name in (name,) if name in things.ids
            ]


async def _seen(things: Things) -> dict[str, Any]:
    """Return everything that an app can list."""
    lists: tuple[str, ...] = ("runs?identifier=same", "workflows", "files", "/apps/c/keys")
    lists += ("workflows/discover",)
    lists += ("files/uploads", "variables", "connections", "schedules")
    lists += ("collections", "tags") if "collection_id" in things.ids else ()
    lists += ("webhooks",) if "webhook_id" in things.ids else ()
    if "test_id" in things.ids:
        lists += (f"workflows/{things.ids['workflow_id']}/tests",)
    if "record_id" in things.ids:
        lists += (f"collections/{things.ids['collection_id']}/records",)
    seen = {path: await things.caller.ok("GET", path) for path in lists}
    for key in seen["/apps/c/keys"]:
        key.pop("last_used_at", None)
    for file in seen["files"]:
        file.pop("file_url", None)  # signed anew each time
    return seen
