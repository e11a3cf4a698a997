"""Ids of another app's things inside of one's own requests: they are unknown there, and nothing
tells that they exist.

The members are those that the server itself describes: a new one has to be tried here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.acceptance.harness import Answer, Caller, Clients
from tests.acceptance.kinds import first, http
from tests.acceptance.loopback import Loopback
from tests.acceptance.test_strangers import Things

DATABASES = ("sqlite", "postgres")
_MEMBER = re.compile(r"(\w+_)?(id|ids|url)|file")
HOLE = "<the id>"
APP = "/apps/{app_id}"
WORKFLOW = APP + "/workflows/{workflow_id}"
FOUND = APP + "/workflows/discover/{workflow_id}"
COLLECTION = APP + "/collections/{collection_id}"
TESTS = WORKFLOW + "/tests"
RULE = {"name": "Rule", "key": "rule"}
EXPECTED = {"key": "one", "name": "One", "expectation_id": HOLE}
TRIGGER = {"name": "x", "config": {"type": "PERSONA", "mappings": []}, "connection_id": HOLE}
EVERY = {"every": 31_622_400}


class Place(NamedTuple):
    """A member of a request in which an id may stand: what the id is of, and the whole body."""

    method: str
    path: str
    of: str
    body: Any
    member: str = ""

    @property
    def name(self) -> str:
        return self.member or self.of


def _step(step: dict[str, Any]) -> dict[str, Any]:
    return {"step": {"key": "one", **step}}


def _service(kind: str, action: str, given: dict[str, Any]) -> dict[str, Any]:
    service = {"type": kind, "action": action, "input": given}
    return _step({"type": "service", "service": service})


def _model(**connection: str) -> dict[str, Any]:
    asked = {"provider": "auto", "model": "m", "messages": "Hello", **connection}
    return _step({"type": "model", "provider": asked})


VERSION = "workflow_version_id"
PLACES = (
    Place("POST", APP + "/workflows", "tag_id", {"name": "x", "tags_ids": [HOLE]}, "tags_ids"),
    Place(
        "POST", APP + "/workflows/import", "tag_id", {"name": "x", "tags_ids": [HOLE]}, "tags_ids"
    ),
    Place("PATCH", WORKFLOW, "tag_id", {"tags_ids": [HOLE]}, "tags_ids"),
    Place("POST", WORKFLOW + "/runs", "version", {VERSION: HOLE}, VERSION),
    Place("POST", WORKFLOW + "/runs", "file_id", {"input": {"doc": HOLE}}, "input"),
    Place("POST", WORKFLOW + "/runs", "file_id", {"input": {"doc": {"id": HOLE}}}, "input"),
    Place("POST", WORKFLOW + "/runs", "file_id", {"input": {"doc": {"file_id": HOLE}}}, "input"),
    Place("POST", WORKFLOW + "/runs", "file_upload_id", {"input": {"doc": HOLE}}, "input"),
    Place(
        *("POST", WORKFLOW + "/runs", "future_file_id"),
        *({"input": {"doc": {"future_file_id": HOLE}}}, "input"),
    ),
    Place("POST", FOUND + "/runs", "version", {VERSION: HOLE}, VERSION),
    Place("POST", APP + "/runs/cancel", "workflow_id", {"workflow_id": HOLE}),
    Place("POST", APP + "/schedules", "workflow_id", {"workflow_id": HOLE, **EVERY}),
    Place(
        *("POST", APP + "/schedules", "version"),
        *({"workflow_id": "{workflow_id}", VERSION: HOLE, **EVERY}, VERSION),
    ),
    Place("PATCH", APP + "/schedules/{schedule_id}", "version", {VERSION: HOLE}, VERSION),
    Place("POST", TESTS, "expectation_id", {"name": "x", "expectations": [EXPECTED]}),
    Place("PATCH", TESTS + "/{test_id}", "expectation_id", {"expectations": [EXPECTED]}),
    Place(
        *("POST", APP + "/runs/{run_id}/test", "expectation_id"),
        {"name": "x", "expectations": [EXPECTED]},
    ),
    Place("POST", APP + "/files", "file_id", {"file": HOLE}, "file"),
    Place("POST", APP + "/files", "file_id", {"file": {"file_id": HOLE}}, "file"),
    Place("POST", APP + "/files", "file_upload_id", {"file": HOLE}, "file"),
    Place("POST", APP + "/files", "address", {"file_url": HOLE}, "file_url"),
    Place("POST", APP + "/collections", "tag_id", {"name": "x", "tags_ids": [HOLE]}, "tags_ids"),
    Place(
        *("POST", APP + "/collections", "collection_id"),
        *({"name": "x", "from_collection_id": HOLE}, "from_collection_id"),
    ),
    Place("PATCH", COLLECTION, "tag_id", {"tags_ids": [HOLE]}, "tags_ids"),
    Place(
        *("PATCH", COLLECTION + "/config", "workflow_id"),
        {"rules": [{**RULE, "workflow_id": HOLE}]},
    ),
    Place(
        *("PATCH", COLLECTION + "/config", "version"),
        *({"rules": [{**RULE, "workflow_id": "{workflow_id}", VERSION: HOLE}]}, VERSION),
    ),
    Place("POST", COLLECTION + "/triggers", "connection_id", TRIGGER),
    Place(
        *("PATCH", COLLECTION + "/triggers/{trigger_id}", "connection_id"),
        {"connection_id": HOLE},
    ),
    Place("POST", COLLECTION + "/records", "tag_id", {"tags_ids": [HOLE]}, "tags_ids"),
    Place(
        *("POST", COLLECTION + "/records", "trigger_id"),
        {"entity": {"trigger_id": HOLE, "entity_id": "x", "data": {}}},
    ),
    Place(
        *("PATCH", COLLECTION + "/records/{record_id}", "tag_id"),
        *({"tags_ids": [HOLE]}, "tags_ids"),
    ),
    Place("POST", APP + "/runs/step", "connection_id", _model(connection_id=HOLE), "step"),
    *(
        Place(
            "POST", APP + "/runs/step", of, _service(kind, action, {**more, member: HOLE}), "step"
        )
        for kind, action, of, member, more in (
            ("FILES", "DELETE_FILE", "file_id", "file_id", {}),
            ("FILES", "EXTRACT_CONTENTS", "file_id", "file", {}),
            ("FILES", "EXTRACT_PAGES", "file_id", "file", {"pages": "1"}),
            ("COLLECTIONS", "RECORDS_GET", "record_id", "record_id", {}),
            ("COLLECTIONS", "RECORDS_DELETE", "record_id", "record_id", {}),
            ("COLLECTIONS", "RECORDS_LIST", "collection_id", "collection_id", {}),
            ("COLLECTIONS", "RECORDS_CREATE", "collection_id", "collection_id", {"name": "x"}),
        )
    ),
)
NOTHING = {
    ("POST", APP + "/webhooks", "url"): "an address out in the world, and no id of ours",
    ("PATCH", APP + "/webhooks/{webhook_id}", "url"): "the same",
    ("POST", APP + "/connections", "base_url"): "the same",
    ("PATCH", APP + "/connections/{connection_id}", "base_url"): "the same",
    ("POST", COLLECTION + "/records", "entity_id"): "an id of the service that a trigger watches",
    ("POST", "/public/apps/files/uploads/{file_upload_id}", "file"): "bytes: no id opens a file",
    ("POST", "/public/apps/files/uploads/{file_upload_id}", "file_url"): "the same",
}
"""Members of such names that name nothing of an app."""


def _members(schema: Any, described: dict[str, Any], seen: frozenset[str]) -> Iterator[str]:
    """Yield the names of all members of a schema, those inside of others, too."""
    if isinstance(schema, list):
        for one in schema:
            yield from _members(one, described, seen)
        return
    if not isinstance(schema, dict):
        return
    name = schema.get("$ref", "").rpartition("/")[2]
    if name and name not in seen:
        yield from _members(described["components"]["schemas"][name], described, seen | {name})
    for key, value in schema.items():
        if key == "properties":
            yield from value
            yield from _members(list(value.values()), described, seen)
        elif key != "example":
            yield from _members(value, described, seen)


async def test_every_member_that_may_be_an_id_is_tried(callers: Clients) -> None:
    described = await (await callers.app("Acme")).ok("GET", "/openapi.json")
    named = {
        (method.upper(), path, member)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for member in _members(operation.get("requestBody"), described, frozenset())
        if _MEMBER.fullmatch(member)
    }
    tried = {(place.method, place.path, place.name) for place in PLACES}
    assert named - tried - NOTHING.keys() == set()
    assert NOTHING.keys() <= named


FIELDS = {"doc": {"type": "file", "optional": True}, "tag": {"type": "string", "optional": True}}


async def _made(caller: Caller) -> dict[str, str]:
    """Make one of everything; return the ids, with some that stand in no path."""
    things = await Things(caller).make()
    ids = things.ids
    begin = {"type": "input", "key": "start", "input": FIELDS, "destinations": ["first"]}
    await caller.ok("PATCH", f"workflows/{ids['workflow_id']}", {"steps": [begin, first()]})
    made = await caller.ok("POST", f"workflows/{ids['workflow_id']}/versions", {})
    link = await caller.ok("GET", f"files/uploads/{ids['file_upload_id']}")
    file = await caller.ok("GET", f"files/{ids['file_id']}")
    return {
        **ids,
        "version": made["id"],
        "future_file_id": link["future_file_id"],
        "address": file["file_url"].partition("?")[0],
    }


def _unknown(found: str) -> str:
    """Return an id, or an address, of the same form that nothing has."""
    return re.sub(r"(?<=_)[1-9A-Za-z]{22}", "1" * 22, found)


async def _tell(caller: Caller, ids: dict[str, str], place: Place, value: str) -> Answer:
    def fill(text: str) -> str:
        known = re.sub(r"{(\w+)}", lambda match: {**ids, "app_id": "c"}[match[1]], text)
        return known.replace(HOLE, value)

    body = json.loads(re.sub(r'"([^"]*)"', lambda text: fill(text[0]), json.dumps(place.body)))
    return await caller.ask(place.method, fill(place.path), body)


def _plain(answer: Answer, value: str) -> tuple[int, str]:
    """Return what is told, without the id and without times."""
    told = answer.body.decode().replace(value, HOLE)
    return answer.status, re.sub(r'"(start|end|time)": ?[\d.]+', "", told)


async def test_what_is_anothers_is_unknown_in_ones_own_requests(callers: Clients) -> None:
    acme = await _made(await callers.app("Acme"))
    caller = await callers.app("Globex")
    ours = await _made(caller)
    await caller.publish(ours["workflow_id"])
    for place in PLACES:
        theirs, nothing = acme[place.of], _unknown(acme[place.of])
        assert theirs != nothing
        found = _plain(await _tell(caller, ours, place, theirs), theirs)
        unknown = _plain(await _tell(caller, ours, place, nothing), nothing)
        assert found == unknown, place
        refused = found[0] in (400, 404, 409) or '"FAILED"' in found[1]
        nobody = found[1] == '{"count":0,"runs":[]}'
        assert refused or nobody, (place, found)


async def test_steps_find_nothing_of_another_app(callers: Clients) -> None:
    """What a document names is looked for when it runs."""
    acme = await _made(await callers.app("Acme"))
    caller = await callers.app("Globex")
    for of, step in (
        ("workflow_id", {"type": "workflow", "workflow_id": HOLE}),
        ("connection_id", _model(connection_id=HOLE)["step"]),
        ("record_id", _service("COLLECTIONS", "RECORDS_GET", {"record_id": HOLE})["step"]),
        ("file_id", _service("FILES", "EXTRACT_CONTENTS", {"file": HOLE})["step"]),
        ("file_id", {"type": "code", "code": f'return await util.getFileText("{HOLE}")'}),
    ):
        told = []
        for value in (acme[of], _unknown(acme[of])):
            text = json.dumps([{**step, "key": "one"}]).replace(HOLE, value)
            made = await caller.ok("POST", "workflows", {"name": "x", "steps": json.loads(text)})
            path = f"workflows/{made['id']}/runs"
            run = await caller.ok("POST", path, {"workflow_version_id": "draft"})
            assert run["status"] == "FAILED", (step, run)
            told.append(run["error"].replace(value, HOLE))
        assert told[0] == told[1], step


async def test_a_handle_of_another_apps_secret_is_only_text(
    callers: Clients, loopback: Loopback
) -> None:
    acme, globex = await callers.app("Acme"), await callers.app("Globex")
    secret = {"key": "TOKEN", "value": "a planted secret", "secret": True}
    await acme.ok("POST", "variables", secret)
    tells = await acme.push([{"type": "code", "key": "tell", "code": "return variables.TOKEN"}])
    handle = (await acme.ok("POST", f"workflows/{tells}/runs"))["result"]
    assert handle.startswith("insulasecret")
    for caller in (globex, acme):  # of a run of one's own it is another run's, too
        if caller is globex:
            await caller.ok("POST", "variables", {**secret, "value": "another secret"})
        sends = http("send", f"{loopback.url}/ok/{caller.app_id}", headers={"X-Told": handle})
        run = await caller.ok("POST", f"workflows/{await caller.push([sends])}/runs")
        assert run["status"] == "COMPLETED"
        (arrival,) = loopback.of(caller.app_id)
        assert arrival.headers["x-told"] == handle
