"""One of everything that the contract knows, with all that it may hold: what is answered of it is
looked at member by member.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.acceptance.harness import WAIT, Caller
from tests.adapters.extraction import documents
from tests.contract import operations, validate_answer
from tests.contract_examples import each_filled
from tests.contract_members import Seen

Found = dict[str, Any]

APP = "/apps/{app_id}"
FILES = APP + "/files"
WORKFLOW = APP + "/workflows/{workflow_id}"
RUNS = WORKFLOW + "/runs"
RUN = RUNS + "/{run_id}"
TEST = WORKFLOW + "/tests/{test_id}"
COLLECTION = APP + "/collections/{collection_id}"
RECORD = COLLECTION + "/records/{record_id}"

KEEP = {"max_age_in_seconds": 600, "preserve_on_failure": True}
OPTIONS = {"display": {"field": "inline", "container": "grid", "hidden": False}}
LETTER = [(50.0, 800.0, 20.0, "Report"), (50.0, 770.0, 11.0, "All is well.")]
TABLE = b"<!doctype html><html><body><h1>Sums</h1><p>Two of them.</p>"
TABLE += b"<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"
LONG = {"text": "word " * 1_000, "token_delay_ms": 20}
LOOK = {"tool_calls": [{"name": "look", "input": {"n": 1}}]}


class Witness:
    """An app that looks at every answer: is it right, and what was in it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.seen = Seen()

    async def ask(
        self, method: str, path: str, body: Any = None, query: str = "", **ids: Any
    ) -> Any:
        """Ask an operation, named as the document names it; return what it answers."""
        place = re.sub(r"{(\w+)}", lambda name: {"app_id": "c", **ids}[name[1]], path)
        answer = await self.caller.ok(method, place + query, body)
        self.look(answer, method, path)
        return answer

    def look(self, answer: Any, method: str, path: str) -> None:
        """Look at an answer."""
        if (method, path) in operations():
            validate_answer(answer, method, path)
            self.seen.answer(answer, method, path)

    async def until(self, done: Callable[[Any], bool], path: str, **ids: Any) -> None:
        """Ask again and again until an answer is as it is wanted."""
        async with asyncio.timeout(WAIT):
            while not done(await self.ask("GET", path, **ids)):  # noqa: ASYNC110  # as a client does
                await asyncio.sleep(0.02)


def whole_steps() -> list[Found]:
    """Return a step of every type, and of every service's actions, with all that it may hold."""
    types = [step for step in each_filled("StepSchema") if step["type"] != "service"]
    service = next(step for step in each_filled("StepSchema") if step["type"] == "service")
    first = service["service"]["definitions"]
    actions = [
        {**service, "service": {**action, "definitions": [] if number else first}}
        for number, action in enumerate(each_filled("ServiceSchema"))
    ]
    steps = []
    for number, step in enumerate([*types, *actions]):
        made = {**step, "key": f"step{number}", "destinations": []}
        if step["type"] in ("note", "input", "branch"):
            del made["loop"]
        if "conditions" in made:
            made |= {"conditions": {"m": {"condition": "x", "destinations": [], "order": 1}}}
            made["else"] = []
        if "webhook" in made:
            made["webhook"] = {"method": "POST", "path": "/in"}
        if step["type"] == "model":
            tool = {**step["provider"]["tools"][0], "name": "external:look"}
            made["provider"] = {**step["provider"], "tools": [tool]}
        steps.append(made)
    return steps


async def documents_whole(witness: Witness) -> None:
    """A draft that holds all that a draft may hold comes back as it was sent."""
    fields = next(step["input"] for step in whole_steps() if step["type"] == "input")
    tag = await witness.ask("POST", APP + "/tags", {"name": "urgent", "color": "#f00"})
    body = {
        "key": "whole",
        "input": fields,
        "input_default": {"m1": 1},
        "input_options": OPTIONS,
        "steps": whole_steps(),
    }
    more = {"name": "Whole", "description": "All", "retention": KEEP, "tags_ids": [tag["id"]]}
    made = await witness.ask("POST", APP + "/workflows", {**body, **more})
    shown = await witness.ask("GET", WORKFLOW, workflow_id=made["id"])
    assert {name: shown[name] for name in body} == body
    await witness.ask("GET", APP + "/workflows", query="?search=Whole")


def rich_steps(url: str, child: str, failing: str, connection: str) -> list[Found]:
    """Return a workflow whose steps end in every way that a run survives."""
    mock = {"provider": "mock", "model": "m", "messages": "Hello"}
    tools = {"tools": ["look", "bad", "external:fetch"]}
    calls = [{"name": name, "input": {"n": 1}} for name in ("look", "bad", "fetch")]
    kept: Found = {"throw_on_error": False, "destinations": []}
    fields = {"amount": {"type": "number", "optional": True}}
    return [
        {"type": "input", "key": "form", "input": fields, "destinations": [
            "size", "ask", "declines", "call", "own", "kid", "fails", "breaks", "skipped", "sick",
        ]},
        {"type": "branch", "key": "size", "else": ["end"], "conditions": {
            "big": {"condition": "input.amount > 1", "destinations": ["end"], "order": 0},
        }},
        {"type": "model", "key": "ask", "loop": "index < 2 ? 1 : null", "provider": {
            **mock, **tools, "mock": {"replies": [{"tool_calls": calls, "credits": 2}]},
        }},
        {"type": "model", "key": "declines", "provider": {
            **mock, "mock": {"replies": [{"refusal": "No."}]},
        }},
        {"type": "code", "key": "look", "code": "console.log(args); return args"},
        {"type": "code", "key": "bad", "code": "console.log(1); throw new Error('broken')"},
        {"type": "http_request", "key": "call", "method": "GET", "url": f"{url}/echo/json"},
        {"type": "model", "key": "own", "provider": {
            **mock, "provider": "own", "model": "text-1", "connection_id": connection,
        }},
        {"type": "workflow", "key": "kid", "workflow_id": child, "input": {}},
        {"type": "workflow", "key": "sick", "workflow_id": failing, "input": {}, **kept},
        {"type": "code", "key": "fails", "loop": "index < 3 ? 1 : null", **kept,
         "code": "console.log(index); if (index) throw new Error('no'); return index"},
        {"type": "model", "key": "breaks", **kept, "provider": {
            **mock, "tools": ["look"], "mock": {"replies": [LOOK, {"error": {"status": 500}}]},
        }},
        {"type": "code", "key": "skipped", "code": "return 1", "conditional": "false"},
        {"type": "code", "key": "end", "code": "console.log(1); return {result: {passed: true}}"},
    ]  # fmt: skip


async def runs_of(witness: Witness, url: str) -> Found:
    """Runs in every status, of a version that a rollback made; returns the ids of one."""
    ask = witness.ask
    connection = await ask("POST", APP + "/connections", {
        "name": "Own", "type": "OPENAI_COMPATIBLE", "provider": "own",
        "base_url": f"{url}/v1", "credentials": {"api_key": "a key of mine"},
    })  # fmt: skip
    child = await witness.caller.push([{"type": "code", "key": "one", "code": "return 1"}])
    sick = [{"type": "code", "key": "one", "code": "throw new Error('no')"}]
    failing = await witness.caller.push(sick)
    steps = rich_steps(url, child, failing, connection["id"])
    flow = {"name": "Rich", "description": "x", "input_default": {"amount": 2}}
    fields = {"amount": {"type": "number", "optional": True}}
    flow |= {"input": fields, "input_options": OPTIONS, "retention": KEEP}
    of = {"workflow_id": await witness.caller.push(steps, **flow)}
    noted = {"notes": "first", "description": "d", "force": True}
    await ask("POST", WORKFLOW + "/versions", noted, **of)
    await ask("POST", WORKFLOW + "/rollback", {"version": 2, "notes": "back", "force": True}, **of)
    await witness.caller.publish(of["workflow_id"])
    body = {"input": {"amount": 2}, "retention": KEEP, "identifier": "mine"}
    run = await ask("POST", RUNS, body, "?verbose=all", **of)
    assert run["status"] == "COMPLETED", run
    of["run_id"] = run["id"]
    await ask("GET", RUN, query="?verbose=all", **of)
    await ask("GET", RUNS, query="?verbose=all", **of)
    await ask("PATCH", RUN + "/retention", {"retention": KEEP}, **of)
    await ask("POST", RUN + "/replay", {"stepKey": "end"}, **of)
    drafted = {"workflow_version_id": "draft", "input": {"amount": 1}}
    await ask("POST", RUNS, drafted, workflow_id=of["workflow_id"])
    for path in ("", "/{version_id_or_version_number}"):
        await ask("GET", f"{WORKFLOW}/versions{path}", version_id_or_version_number="3", **of)
        found = APP + "/workflows/discover/{workflow_id}/versions" + path
        await ask("GET", found, version_id_or_version_number="3", **of) if path else None
    await ask("GET", WORKFLOW, **of)
    await ask("GET", APP + "/workflows/discover/{workflow_id}", **of)
    await _failing(witness)
    await _stopped(witness)
    step = {"type": "code", "key": "one", "code": "console.log(1); return 1"}
    for text in (step["code"], "console.log(1); throw new Error('no')"):
        await ask("POST", APP + "/runs/step", {"step": {**step, "code": text}})
    return of


async def _failing(witness: Witness) -> None:
    steps = [
        {"type": "code", "key": "bad", "code": "await util.sleep(1); throw new Error('no')"},
        {"type": "code", "key": "other", "code": "await util.sleep(600000)"},
    ]
    failing = await witness.caller.push(steps)
    run = await witness.ask("POST", RUNS, {}, workflow_id=failing)
    assert (run["status"], run["output"]["other"]["status"]) == ("FAILED", "CANCELLED")


async def _stopped(witness: Witness) -> None:
    """A run that is at work, and then cancelled."""
    mock = {"provider": "mock", "model": "m", "messages": "Hello", "tools": ["look"]}
    counting = "console.log(index); if (index == 2) await util.sleep(600000); return index"
    steps = [
        {"type": "model", "key": "speak", "provider": {**mock, "mock": {"replies": [LOOK, LONG]}}},
        {"type": "code", "key": "look", "code": "return args"},
        {"type": "code", "key": "count", "loop": "index < 9 ? 1 : null", "code": counting},
    ]
    of = {"workflow_id": await witness.caller.push(steps)}
    run = await witness.ask("POST", RUNS, {"background": True}, **of)
    of["run_id"] = run["id"]

    def busy(shown: Found) -> bool:
        speak, count = (shown["output"].get(key, {}) for key in ("speak", "count"))
        return "output" in speak and "calls" in speak and len(count.get("output", ())) == 2

    await witness.until(busy, RUN, **of)
    stopped = await witness.ask("POST", RUN + "/cancel", query="?verbose=all", **of)
    assert stopped["status"] == "CANCELLED"


async def tests_of(witness: Witness, of: Found) -> None:
    """A test with all that it may have, judged."""
    ask, path = witness.ask, WORKFLOW + "/tests"
    of = {"workflow_id": of["workflow_id"]}
    shared = await ask("POST", path + "/expectations", {"name": "Same", "script": "true"}, **of)
    of["expectation_id"] = shared["id"]
    of["test_id"] = (await ask("POST", path, {"name": "One"}, **of))["id"]
    script = "console.log(1); result.passed"
    expectations = [
        {"key": "shared", "name": "Shared", "expectation_id": shared["id"]},
        {"key": "own", "name": "Own", "script": script},
        {"key": "not", "name": "Not", "script": "false"},
    ]
    body = {"input": {"amount": 2}, "input_default": {"amount": 1}, "step_key": "form"}
    context = {"look": {"output": 1}}
    body |= {"input_context": context, "expectations": expectations}
    await ask("PATCH", TEST, body, **of)
    await ask("POST", TEST + "/runs", {}, **of)
    for one in (TEST, path, path + "/stats", path + "/expectations", WORKFLOW):
        await ask("GET", one, query="?verbose=all", **of)


async def files_of(witness: Witness) -> None:
    """Files that were read, could not be read, and came through a link."""
    ask = witness.ask
    wished = {"document_extract_contents": True, "document_extract_images": True}
    pages = {**wished, "document_extract_pages": True, "document_pages": [2, 1]}
    whole = documents.pdf(LETTER, LETTER, LETTER)
    ids = [await _sent(witness, "a.pdf", whole, pages)]
    ids.append(await _sent(witness, "a.html", TABLE, wished))
    ids.append(await _sent(witness, "bad.pdf", b"%PDF-1.4\nnothing", wished))
    for file_id in ids:
        done = FILES + "/{file_id}"
        await witness.until(lambda f: f["file_status"] != "PROCESSING", done, file_id=file_id)
    link = {**wished, "document_pages": [1], "allowed_types": ["application/pdf", "text/html"]}
    link |= {"metadata": {"a": "b"}, "expires_in_seconds": 600, "visibility": "PUBLIC"}
    public = "/public/apps/files/uploads/{file_upload_id}"
    for name, data in (("b.pdf", whole), ("bad.pdf", b"%PDF-1.4\nnothing")):
        made = await ask("POST", FILES + "/uploads", link)
        of = {"file_upload_id": made["id"]}
        await _sent(witness, name, data, {}, public, **of)
        await witness.until(
            lambda shown: shown["file"]["file_status"] != "PROCESSING",
            FILES + "/uploads/{file_upload_id}",
            **of,
        )
    await ask("GET", FILES)
    await ask("GET", FILES + "/uploads")


async def _sent(
    witness: Witness, name: str, data: bytes, wished: Found, path: str = FILES, **ids: str
) -> str:
    caller = witness.caller
    form = aiohttp.FormData()
    form.add_field("file", data, filename=name)
    for key, value in wished.items():
        form.add_field(key, str(value).lower())
    url = caller.served.url + path.format(app_id="c", **ids)
    headers = {"authorization": f"Bearer {caller.key}"}
    async with caller.session.post(url, data=form, headers=headers) as response:
        answer = await response.json()
    assert response.status == 200, answer
    witness.look(answer, "POST", path)
    file_id: str = answer["id"]
    return file_id


async def records_of(witness: Witness, of: Found) -> None:
    """A collection of a trigger, and a record of an entity that the trigger saw; analysed."""
    ask, caller = witness.ask, witness.caller
    start = {"type": "input", "key": "start", "input": {"name": {"type": "string"}}}
    judge = {"type": "code", "key": "judge", "code": "throw new Error('no')"}
    failing = await caller.push([{**start, "destinations": ["judge"]}, judge])
    tag = (await ask("GET", APP + "/tags"))[0]["id"]
    rules = [
        {"name": "Rich", "key": "rich", "workflow_id": of["workflow_id"], "step_key": "form",
         "execution_order": "before-all", "workflow_input_default": {"amount": 2}},
        {"name": "Failing", "key": "failing", "workflow_id": failing, "on_fail": "WARN"},
    ]  # fmt: skip
    mappings = [{"source_path": "failing:name", "destination_paths": ["rich:name"]}]
    made = await ask(
        "POST", APP + "/collections", {"name": "All", "description": "x", "tags_ids": [tag]}
    )
    here = {"collection_id": made["id"]}
    await ask("PATCH", COLLECTION + "/config", {"rules": rules, "mappings": mappings}, **here)
    trigger = await _triggers(witness, here)
    given = {"rich": {"amount": 2}}
    entity = {"trigger_id": trigger, "entity_id": "case-1", "data": {"person": {"name": "Ann"}}}
    body = {"name": "One", "tags_ids": [tag], "rules": given, "entity": entity}
    here["record_id"] = (await ask("POST", COLLECTION + "/records", body, **here))["id"]
    bare = await ask("POST", COLLECTION + "/records", {"name": "Two"}, **here)
    status = RECORD + "/status"
    await ask("GET", status, collection_id=here["collection_id"], record_id=bare["id"])
    await ask("POST", RECORD + "/run", {"mode": "all"}, **here)
    over = ("COMPLETED", "FAILED", "CANCELLED")
    await witness.until(lambda shown: shown["status"] in over, RECORD, **here)
    for path in (RECORD, COLLECTION, COLLECTION + "/records", APP + "/collections", status):
        await ask("GET", path, **here)
    await ask("GET", RECORD, query="?verbose=all", **here)
    shown = await ask("GET", COLLECTION + "/records", query="?verbose=all", **here)
    # Where a rule's run stands by itself.
    run_id = next(one["rules"]["rich"]["run"]["id"] for one in shown if one["name"] == "One")
    await ask("GET", RUN, workflow_id=of["workflow_id"], run_id=run_id)


async def _triggers(witness: Witness, here: Found) -> str:
    path, known = "person.name", ["failing:name"]
    mappings = [
        {"type": kind, "name": "Name", "entity_path": path, "input_path": known}
        for kind in ("property", "document")
    ]
    connected = await witness.ask("POST", APP + "/connections", {"name": "C", "type": "ENCOMPASS"})
    watched = {"pull_on_millestones": ["Started"], "pull_on_folders": ["In"]}
    made = ""
    for kind, more in (("ENCOMPASS", watched), ("PERSONA", {})):
        config = {"type": kind, "mappings": mappings, **more}
        body = {"name": "Seen", "config": config, "connection_id": connected["id"]}
        made = (await witness.ask("POST", COLLECTION + "/triggers", body, **here))["id"]
    return made


async def small_things(witness: Witness) -> None:
    """Variables and webhooks."""
    for body in (
        {"key": "PLAIN", "value": "1"},
        {"key": "HIDDEN", "value": "long enough", "secret": True},
    ):
        await witness.ask("POST", APP + "/variables", body)
    await witness.ask("GET", APP + "/variables")
    hook = {"url": "http://127.0.0.1:9/", "events": ["record.created", "record.failed"]}
    await witness.ask("POST", APP + "/webhooks", hook)
    await witness.ask("GET", APP + "/webhooks")


async def everything(caller: Caller, url: str) -> Seen:
    """Make everything, and return what was seen; ``url`` is where an echoing server is."""
    witness = Witness(caller)
    await small_things(witness)
    await documents_whole(witness)
    await files_of(witness)
    of = await runs_of(witness, url)
    await tests_of(witness, of)
    await records_of(witness, of)
    return witness.seen
