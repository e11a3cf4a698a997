"""All operations of the contract, walked with requests that it allows, as JSON and as forms.

Every answer must be what the contract says: each required member, type and enumeration.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from tests.acceptance.harness import Caller, Clients
from tests.contract import document, needs_contract, operations, validate_answer, validate_request

Operation = tuple[str, str]

DATABASES = ("sqlite", "postgres")
APP = "/apps/{app_id}"
WORKFLOW = APP + "/workflows/{workflow_id}"
DISCOVER = APP + "/workflows/discover/{workflow_id}"
TESTS = WORKFLOW + "/tests"
COLLECTION = APP + "/collections/{collection_id}"
RECORD = COLLECTION + "/records/{record_id}"
PDF = ("GET", RECORD + "/download")

STEPS: list[dict[str, Any]] = [
    {"type": "note", "key": "about", "note": "x"},
    {
        "type": "input",
        "key": "form",
        "input": {
            "amount": {"type": "number", "title": "Amount", "order": 0, "optional": True},
            "kind": {"type": "select", "options": [{"value": "a", "label": "A"}], "optional": True},
        },
        "destinations": ["size", "ask", "call"],
    },
    {
        "type": "branch",
        "key": "size",
        "conditions": {"big": {"condition": "input.amount > 1", "destinations": ["sum"]}},
        "else": ["never"],
    },
    {"type": "code", "key": "never", "code": "return 0"},
    {
        "type": "model",
        "key": "ask",
        "provider": {
            "provider": "mock",
            "model": "m",
            "messages": [{"role": "user", "content": "{{input.amount}}"}],
            "mock": {"replies": [{"text": "seen"}]},
        },
    },
    {
        "type": "http_request",
        "key": "call",
        "method": "GET",
        "url": "http://127.0.0.1:9/",
        "throw_on_error": False,
    },
    {"type": "code", "key": "sum", "code": "console.log(1); return {result: {passed: true}}"},
]
INPUT = {"amount": 2, "kind": "a"}
RETENTION = {"max_age_in_seconds": 600, "preserve_on_failure": True}
FILE = {"name": "a.txt", "data": "aGVsbG8=", "type": "text/plain", "encoding": "base64"}

BODIES: dict[Operation, list[Any]] = {
    ("POST", APP + "/files"): [
        {"file": FILE, "storage": "TEMPORARY", "visibility": "PUBLIC"},
        {"file": FILE, "document_extract_contents": True, "allowed_types": ["text/plain"]},
    ],
    ("POST", APP + "/files/uploads"): [
        {},
        {"expires_in_seconds": 60, "visibility": "PRIVATE", "metadata": {"a": "b"}},
    ],
    ("PATCH", APP + "/files/uploads/{file_upload_id}"): [{"metadata": {"c": "d"}}],
    ("POST", "/public" + APP.replace("/{app_id}", "") + "/files/uploads/{file_upload_id}"): [
        {"file": FILE}
    ],
    ("POST", APP + "/variables"): [
        {"key": "NEW_ONE", "value": "1"},
        {"key": "NEW_SECRET", "value": "long enough", "secret": True},
    ],
    ("PATCH", APP + "/variables"): [[{"key": "LISTED", "value": "2", "secret": False}]],
    ("PATCH", APP + "/variables/{key}"): [{"key": "RENAMED", "value": "3"}],
    ("POST", APP + "/runs/step"): [
        {"step": {"type": "code", "key": "one", "code": "return {a: 1}"}},
        {"step": {"type": "code", "key": "one", "code": "throw new Error('no')"}},
        {"step": {**STEPS[4], "display": "minimal", "destinations": []}},
    ],
    ("POST", DISCOVER + "/runs"): [{"input": INPUT}, {"background": True, "retention": 60}],
    ("POST", WORKFLOW + "/runs"): [
        {},
        {"input": INPUT, "identifier": "mine", "retention": RETENTION},
        {"input": INPUT, "workflow_version_id": "draft", "from_step_key": "form"},
        {"background": True},
    ],
    ("POST", WORKFLOW + "/runs/{run_id}/replay"): [{"stepKey": "sum", "identifier": "again"}],
    ("PATCH", WORKFLOW + "/runs/{run_id}/retention"): [
        {"retention": 600},
        {"retention": RETENTION},
        {"retention": None},
    ],
    ("POST", TESTS): [{"name": "Another"}],
    ("PATCH", TESTS + "/{test_id}"): [
        {
            "name": "Changed",
            "input": INPUT,
            "input_context": None,
            "expectations": [{"key": "own", "name": "Own", "script": "result.passed"}],
        }
    ],
    ("POST", TESTS + "/runs"): [{"execute_failed_only": True}, {"workflow_version_number": 1}],
    ("POST", TESTS + "/{test_id}/runs"): [{}, {"execute_async": True}],
    ("POST", TESTS + "/expectations"): [{"name": "True", "script": "true"}],
    ("PATCH", TESTS + "/expectations/{expectation_id}"): [{"name": "False", "script": "false"}],
    ("POST", APP + "/collections"): [{"name": "Cases"}, {"name": "More", "description": "x"}],
    ("PATCH", COLLECTION): [{"name": "Cases", "description": None}],
    ("POST", COLLECTION + "/records"): [{}, {"name": "One", "rules": {"size": INPUT}}],
    ("PATCH", RECORD): [{"name": "Two", "rules": {"size": INPUT}}],
    ("POST", RECORD + "/run"): [{"mode": "all"}, {"mode": "changed"}],
    ("POST", APP + "/webhooks"): [
        {"url": "https://hooks.example/in", "events": ["record.created", "record.failed"]}
    ],
    ("PATCH", APP + "/webhooks/{webhook_id}"): [
        {"url": "https://hooks.example/other", "events": ["record.running"]}
    ],
}
"""What operations with a body are sent, each on things of its own."""

QUERIES: dict[str, list[str]] = {
    "verbose": ["verbose=all"],
    "search": ["search=nothing", "search=C"],
    "take": ["page=1&take=1", "take=100"],
}
STATUSES = {"/runs": "COMPLETED", "/tests": "PASSED", "/records": "DRAFT"}


@dataclass
class Stage:
    """One of everything, of an app, made anew for an operation that may take it away."""

    caller: Caller
    here: frozenset[Operation]
    ids: dict[str, str] = field(default_factory=dict)

    async def workflow(self) -> None:
        made = await self.caller.push(STEPS, name="Case", description="A case")
        await self.caller.publish(made)
        run = await self.caller.ok("POST", f"workflows/{made}/runs", {"input": INPUT})
        assert run["status"] == "COMPLETED", run
        self.ids |= {"workflow_id": made, "run_id": run["id"]}
        self.ids["version_id_or_version_number"] = "1"

    async def make(self) -> None:
        ok = self.caller.ok
        path = f"workflows/{self.ids['workflow_id']}"
        file = await ok("POST", "files", {"file": FILE, "document_extract_contents": True})
        upload = await ok("POST", "files/uploads", {})
        for variable in await ok("GET", "variables"):
            await ok("DELETE", f"variables/{variable['key']}")
        key = (await ok("POST", "variables", {"key": "HERE", "value": "1"}))["key"]
        self.ids |= {"file_id": file["id"], "file_upload_id": upload["id"], "key": key}
        if ("POST", TESTS) in self.here:
            test = await ok("POST", f"{path}/tests", {"name": "Same"})
            expected = {"name": "Same", "script": "true"}
            one = await ok("POST", f"{path}/tests/expectations", expected)
            uses = [{"key": "shared", "name": "Shared", "expectation_id": one["id"]}]
            body = {"input": INPUT, "expectations": uses}
            await ok("PATCH", f"{path}/tests/{test['id']}", body)
            self.ids |= {"test_id": test["id"], "expectation_id": one["id"]}
        if ("POST", COLLECTION + "/records") in self.here:
            await self._collection()
        if ("POST", APP + "/webhooks") in self.here:
            for webhook in await ok("GET", "webhooks"):
                await ok("DELETE", f"webhooks/{webhook['id']}")
            body = {"url": "https://hooks.example/x", "events": ["record.completed"]}
            self.ids["webhook_id"] = (await ok("POST", "webhooks", body))["id"]

    async def _collection(self) -> None:
        ok = self.caller.ok
        made = await ok("POST", "collections", {"name": "Cases"})
        rule = {
            "name": "Size",
            "key": "size",
            "on_success": "PASS",
            "on_fail": "FAIL",
            "workflow_id": self.ids["workflow_id"],
            "workflow_use_latest": True,
        }
        path = f"collections/{made['id']}"
        await ok("PATCH", f"{path}/config", {"rules": [rule]})
        record = await ok("POST", f"{path}/records", {"name": "One", "rules": {"size": INPUT}})
        self.ids |= {"collection_id": made["id"], "record_id": record["id"]}

    def path(self, template: str) -> str:
        ids = {**self.ids, "app_id": "c"}
        return re.sub(r"{(\w+)}", lambda found: ids[found[1]], template)


@pytest.fixture
async def stage(callers: Clients) -> Stage:
    caller = await callers.app("Acme")
    made = Stage(caller, await _described(caller))
    await made.workflow()
    return made


async def _described(caller: Caller) -> frozenset[Operation]:
    paths = (await caller.ok("GET", "/openapi.json"))["paths"]
    return frozenset((m.upper(), path) for path, methods in paths.items() for m in methods)


def _form(body: dict[str, Any]) -> aiohttp.FormData:
    """Write a body as a form: objects and lists as JSON text, the rest as text."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in body.items():
        form.add_field(name, value if isinstance(value, str) else json.dumps(value))
    return form


async def _ask(stage: Stage, operation: Operation, body: Any, *, form: bool) -> tuple[int, bytes]:
    method, template = operation
    caller = stage.caller
    if not form:
        answer = await caller.ask(method, stage.path(template), body)
        return answer.status, answer.body
    url = caller.served.url + stage.path(template)
    headers = {"authorization": f"Bearer {caller.key}"}
    async with caller.session.request(method, url, data=_form(body), headers=headers) as response:
        return response.status, await response.read()


def _queries(operation: Operation) -> list[str]:
    method, path = operation
    known = document()["paths"][path][method.lower()].get("parameters", [])
    names = {one.get("name") for one in known}
    found = [query for name in sorted(names & QUERIES.keys()) for query in QUERIES[name]]
    if "status" in names:
        found.append("status=" + next(s for end, s in STATUSES.items() if path.endswith(end)))
    return found


async def _walk(stage: Stage, operation: Operation) -> AsyncIterator[str]:
    """Ask all that there is to be asked of an operation; yield what is wrong."""
    bodies = BODIES.get(operation, [None])
    ways = [(body, form) for body in bodies for form in (False, True)]
    for body, form in ways:
        if form and not isinstance(body, dict):
            continue
        await stage.make()
        problem = await _one(stage, operation, body, form=form)
        if problem:
            yield f"{'form' if form else 'JSON'} {str(body)[:200]}: {problem}"
    for query in _queries(operation):
        if operation[0] == "DELETE":
            continue
        await stage.make()
        method, path = operation[0], f"{operation[1]}?{query}"
        problem = await _one(stage, operation, bodies[-1], form=False, path=path)
        if problem:
            yield f"{method} ?{query}: {problem}"


async def _one(
    stage: Stage, operation: Operation, body: Any, *, form: bool, path: str | None = None
) -> str | None:
    if body is not None:
        validate_request(body, *operation)
    status, raw = await _ask(stage, (operation[0], path or operation[1]), body, form=form)
    if status != 200:
        return f"{status} {raw[:400]!r}"
    if operation == PDF:
        return None if raw.startswith(b"%PDF") else f"no PDF: {raw[:40]!r}"
    answer = json.loads(raw)
    if operation[0] == "DELETE" and answer is not None:
        return f"a delete answers null, not {raw[:100]!r}"
    try:
        validate_answer(answer, *operation)
    except AssertionError as wrong:
        return str(wrong)
    return None


@needs_contract
async def test_every_operation_is_there(stage: Stage) -> None:
    absent = set(operations()) - stage.here
    assert not absent


@needs_contract
@pytest.mark.timeout(300)
async def test_every_operation_answers_as_the_contract_says(stage: Stage) -> None:
    found = operations()
    assert len(found) == 67
    wrong = {}
    for operation in found:
        problems = [problem async for problem in _walk(stage, operation)]
        if problems:
            wrong[operation] = problems
    told = [f"{m} {path}\n    " + "\n    ".join(why) for (m, path), why in wrong.items()]
    assert not wrong, "\n\n".join(told)


@needs_contract
def test_every_body_of_the_contract_is_sent() -> None:
    with_body = {
        (method, path)
        for method, path in operations()
        if "requestBody" in document()["paths"][path][method.lower()]
    }
    assert with_body == BODIES.keys()
