"""Two apps with the same names, and a third that guesses: what is another's does not exist.

The routes are those that the server itself describes.
"""

import re
from typing import Any

import pytest

from tests.acceptance.harness import Answer, Caller, Clients
from tests.acceptance.kinds import first

UNKNOWN = "1" * 22
BODIES: dict[str, Any] = {
    "replay": {"stepKey": "first"},
    "retention": {"retention": 60},
    "rollback": {"version": 1},
    "runs": {"input": {"tag": "x"}},
    "versions": {"notes": "x"},
    "duplicate": {"name": "x"},
    "keys": {"name": "x"},
    "{version_id_or_version_number}": {"withdrawn": True},
    "{key}": {"value": "x"},
    "records": {"name": "x"},
    "run": {"mode": "all"},
    "config": {"rules": []},
    "expectations": {"name": "x", "script": "true"},
    "triggers": {"name": "x", "config": {"type": "PERSONA", "mappings": []}},
}
"""A body that would do, by the last part of the path; other writes get a name."""
NOT_OURS = {"/files/{file_id}/content", "/public/apps/files/uploads/{file_upload_id}"}
"""Opened by a signature, or by an address that cannot be guessed, and not by a key."""
OWN_RUNS = "/apps/{app_id}/workflows/discover/{workflow_id}/runs"
"""Lists the caller's own runs, of a workflow that may be long gone: empty, and no 404."""
WORDS = {"target"}
"""Parts of paths that are one of a few words."""
ADMINS = {("PATCH", "/apps/{app_id}"), ("DELETE", "/apps/{app_id}")}


class Things:
    """One of everything, of an app."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.ids: dict[str, str] = {}

    async def make(self) -> "Things":
        """Make them, under names that every app uses."""
        caller = self.caller
        workflow_id = await caller.push([first()], name="Triage", key="triage")
        path = f"workflows/{workflow_id}"
        run = await caller.ok(
            "POST", f"{path}/runs", {"input": {"tag": caller.app_id}, "identifier": "same"}
        )
        (version,) = await caller.ok("GET", f"{path}/versions")
        file = await caller.ok("POST", "files", {"file": {"name": "a.txt", "data": "aGVsbG8="}})
        upload = await caller.ok("POST", "files/uploads", {"metadata": {"a": 1}})
        (key,) = await caller.ok("GET", "/apps/c/keys")
        # Keys are names that two apps may have both; only so are they of one alone.
        variable = {"key": f"K{caller.app_id[4:]}", "value": caller.app_id}
        await caller.ok("POST", "variables", variable)
        connection = await caller.ok("POST", "connections", {"name": "Chat", "type": "SLACK"})
        asked = {"workflow_id": workflow_id, "every": 31_622_400, "input": {"tag": "x"}}
        schedule = await caller.ok("POST", "schedules", asked)
        self.ids = {
            "workflow_id": workflow_id,
            "run_id": run["id"],
            "version_id_or_version_number": version["id"],
            "file_id": file["id"],
            "file_upload_id": upload["id"],
            "key_id": key["id"],
            "key": variable["key"],
            "connection_id": connection["id"],
            "schedule_id": schedule["id"],
            "caller_app_id": caller.app_id,
            "target": "latest",
        }
        here = (await caller.ok("GET", "/openapi.json"))["paths"]
        for last, make in (
            ("/tests", self._tests),
            ("/collections", self._collection),
            ("/webhooks", self._webhook),
        ):
            if any(path.endswith(last) for path in here):
                await make(path)
        return self

    async def _tests(self, path: str) -> None:
        test = await self.caller.ok("POST", f"{path}/tests", {"name": "Same"})
        expected = {"name": "Same", "script": "true"}
        expectation = await self.caller.ok("POST", f"{path}/tests/expectations", expected)
        self.ids |= {"test_id": test["id"], "expectation_id": expectation["id"]}

    async def _collection(self, path: str) -> None:
        tag = await self.caller.ok("POST", "tags", {"name": "Same"})
        made = await self.caller.ok("POST", "collections", {"name": "Same"})
        path = f"collections/{made['id']}"
        record = await self.caller.ok("POST", f"{path}/records", {"name": "Same"})
        trigger = await self.caller.ok("POST", f"{path}/triggers", BODIES["triggers"])
        self.ids |= {"collection_id": made["id"], "record_id": record["id"], "tag_id": tag["id"]}
        self.ids["trigger_id"] = trigger["id"]

    async def _webhook(self, path: str) -> None:
        body = {"url": "http://127.0.0.1:9/", "events": ["record.failed"]}
        webhook = await self.caller.ok("POST", "webhooks", body)
        told = await self.caller.ok("POST", f"webhooks/{webhook['id']}/test")
        self.ids |= {"webhook_id": webhook["id"], "delivery_id": told["id"]}

    def unknown(self) -> dict[str, str]:
        """Ids of the same forms that nothing has."""
        return {
            name: value
            if name in WORDS
            else value[: value.find("_") + 1] + ("K" if name == "key" else "") + UNKNOWN
            for name, value in self.ids.items()
        }


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
        if route == ("GET", OWN_RUNS):
            assert unknown.body == b"[]"
        elif b"not available yet" not in unknown.body:
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
