"""Whatever a caller sends: an answer of the contract, nothing half-written, nobody else harmed."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from insula.web.pagination import encode_cursor
from tests.acceptance.harness import Answer, Caller, Clients
from tests.acceptance.kinds import http

DATABASES = ("sqlite", "postgres")

DEEP = b"[" * 100_000 + b"]" * 100_000
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e300,
    10**30,
    10**400,
    "",
    "x" * 20_000,
    "\x00",
    "../../etc/passwd",
    [],
    {},
    [[]],
    [{"a": [None]}],
    {"a": {"b": []}},
)
"""Values of the wrong kind, or of none that is expected, for almost any field."""
CURSOR = encode_cursor({"x": "y"})
STEP: dict[str, Any] = {"type": "code", "key": "only", "code": "return 1"}


def refused(answer: Answer) -> None:
    """Check the shape of an answer that is no success; a 5xx is none of the caller's making."""
    assert 400 <= answer.status < 500, (answer.status, answer.body[:500])
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert body["status"] == answer.status
    assert isinstance(body["message"], str)
    assert body["message"]
    for error in body.get("errors", []):
        assert error.keys() == {"validation", "code", "message", "path"}
        assert all(isinstance(part, str) for part in error["path"])


def tolerated(answer: Answer) -> None:
    """Check an answer that may be a success."""
    if answer.status != 200:
        refused(answer)


@pytest.fixture
async def acme(callers: Clients) -> Caller:
    return await callers.app("Acme")


@pytest.fixture
async def bystander(callers: Clients) -> AsyncIterator[None]:
    """Light runs go on in the same process, whatever a test sends; each must complete."""
    other = await callers.app("Initech")
    workflow_id = await other.push([STEP])
    stop = asyncio.Event()

    async def run_and_run() -> int:
        count = 0
        while not stop.is_set():
            run = await other.ok("POST", f"workflows/{workflow_id}/runs")
            assert (run["status"], run["result"]) == ("COMPLETED", 1)
            count += 1
        return count

    running = asyncio.create_task(run_and_run())
    yield
    stop.set()
    assert await running > 0


class Target:
    """Every write that takes a body, on things that exist."""

    def __init__(self, workflow_id: str, run_id: str) -> None:
        self.workflow_id = workflow_id
        workflow, run = f"workflows/{workflow_id}", f"workflows/{workflow_id}/runs/{run_id}"
        self.writes = (
            ("POST", "workflows"),
            ("PATCH", workflow),
            ("POST", "workflows/import"),
            ("POST", f"{workflow}/duplicate"),
            ("POST", f"{workflow}/versions"),
            ("PATCH", f"{workflow}/versions/1"),
            ("POST", f"{workflow}/rollback"),
            ("POST", f"{workflow}/runs"),
            ("POST", f"{run}/replay"),
            ("PATCH", f"{run}/retention"),
            ("POST", "runs/cancel"),
            ("POST", "runs/step"),
            ("POST", "files"),
            ("PATCH", "/apps/c"),
            ("POST", "/apps/c/keys"),
        )


@pytest.fixture
async def target(acme: Caller) -> Target:
    workflow_id = await acme.push([STEP])
    run = await acme.ok("POST", f"workflows/{workflow_id}/runs")
    return Target(workflow_id, run["id"])


BODIES = {
    "deep": DEEP,
    "deep-objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "cut": b'{"name": "x", "steps": [',
    "no-json": b"name=x",
    "utf-8": b'{"name": "\xff\xfe"}',
    "utf-16": '{"name": "x"}'.encode("utf-16"),
    "surrogate": b'{"name": "\\ud800", "identifier": "\\udfff", "stepKey": "\\ud800"}',
    "list": b"[1, 2]",
    "text": b'"text"',
    "number": b"1e999",
    "nan": b'{"name": NaN}',
    "nul": b'{"name": "a\\u0000b", "identifier": "\\u0000", "key": "\\u0000"}',
    "raw-nul": b'{"name": "\x00"}',
    "many-lists": b"[" + b"[]," * 1_100_000 + b"[]]",
}


@pytest.mark.parametrize("name", BODIES)
async def test_bodies_that_are_none(
    acme: Caller, target: Target, bystander: None, name: str
) -> None:
    for method, path in target.writes:
        answer = await acme.ask(method, path, raw=BODIES[name])
        refused(answer) if name not in ("nul", "surrogate") else tolerated(answer)


async def test_a_body_over_the_limit(acme: Caller, target: Target, bystander: None) -> None:
    large = b'{"name": "' + b"x" * (33 * 1024 * 1024) + b'"}'
    for method, path in target.writes[:3]:
        answer = await acme.ask(method, path, raw=large)
        refused(answer)
        assert answer.status == 413
        assert "multipart" in answer.json()["message"]

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(34):
            yield b" " * (1024 * 1024)

    async with acme.session.post(
        f"{acme.served.url}/apps/c/workflows",
        data=endless(),
        headers={"authorization": f"Bearer {acme.key}", "content-type": "application/json"},
    ) as response:
        assert response.status == 413


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/xml",
        "application/octet-stream",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=x",
        "multipart/mixed; boundary=x",
        "\xff/\xfe",
    ],
)
async def test_content_types_that_do_not_fit(acme: Caller, target: Target, kind: str) -> None:
    for method, path in target.writes:
        for raw in (b"--x\r\nno", b"--y--", b'{"name": "x"}'):
            answer = await acme.ask(method, path, raw=raw, headers={"content-type": kind})
            refused(answer)


BROKEN = {
    "cut": b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\n{"a":',
    "no-name": b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n",
    "bad-json": b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\n{\r\n--x--\r\n',
    "bad-utf-8": b'--x\r\nContent-Disposition: form-data; name="input"\r\n\r\n\xff\r\n--x--\r\n',
    "headers": b"--x\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n1\r\n--x--\r\n",
    "parts": b"".join(
        b'--x\r\nContent-Disposition: form-data; name="p%d"\r\n\r\n1\r\n' % i for i in range(20_000)
    )
    + b"--x--\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_forms(acme: Caller, target: Target, bystander: None, name: str) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    for method, path in target.writes:
        tolerated(await acme.ask(method, path, raw=BROKEN[name], headers=form))


async def test_wrong_values_in_every_field(acme: Caller, target: Target, bystander: None) -> None:
    """The fields are those of the product's own description."""
    fields = ("input", "stream", "background", "identifier", "retention", "on_disconnect")
    fields += ("workflow_version_id", "from_step_key", "timeout", "limits", "stepKey", "step")
    fields += ("status", "origin", "workflow_id", "since", "until", "notes", "description", "force")
    fields += ("version", "name", "key", "input_default", "input_options", "steps", "tags_ids")
    fields += ("enabled", "discoverable", "open", "caller_limit", "updated_at", "expires_at")
    fields += ("read_only", "withdrawn", "settings", "file", "filename", "visibility")
    # What is read of a body does not depend on the database: on the second every third is enough.
    share = 3 if "INSULA_DATABASE_URL" in acme.served.settings else 1
    for turn, (method, path) in enumerate(target.writes):
        needed = {"POST:workflows": {"name": "Fuzz"}}.get(f"{method}:{path}", {})
        if path.endswith("/replay"):
            needed = {"stepKey": "only"}
        asked = (
            acme.ask(method, path, {**needed, field: value})
            for number, (field, value) in enumerate(itertools.product(fields, WRONG))
            if (field, value) != ("stream", True) and (number + turn) % share == 0
        )
        for some in _batches(asked, 32):
            for answer in await asyncio.gather(*some):
                tolerated(answer)
    # Whatever was accepted can be read back.
    for listed in ("workflows?take=100", "runs?take=100"):
        assert isinstance(await acme.ok("GET", listed), list)


def _batches(asked: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while some := list(itertools.islice(asked, size)):
        yield some


STEPS: dict[str, dict[str, Any]] = {
    "note": {"note": "n"},
    "input": {"input": {"a": {"type": "string"}}},
    "branch": {"conditions": {"c": {"condition": "true", "destinations": [], "order": 0}}},
    "code": {"code": "return 1"},
    "model": {"provider": {"provider": "mock", "model": "m", "messages": []}},
    "http_request": {"url": "http://127.0.0.1:9/", "method": "GET"},
    "browser": {"url": "http://127.0.0.1:9/"},
    "workflow": {"workflow_id": "work_1", "input": {}},
    "service": {"service": {}},
}
_SETTINGS = (
    *("key", "type", "display", "conditional", "loop", "throw_on_error", "input_connected"),
    *("destinations", "position", "size", "auto", "timeout", "retry", "on_interrupt", "limits"),
    *("note", "input", "webhook", "conditions", "else", "code", "provider", "url", "method"),
    *("headers", "body", "step_key", "workflow_id", "workflow_version_id", "service"),
)


@pytest.mark.parametrize("kind", STEPS)
async def test_wrong_values_in_every_setting_of_a_step(acme: Caller, kind: str) -> None:
    before = int((await acme.ask("GET", "workflows?take=1")).headers["pagination-count"])
    made = 0
    whole = {"type": kind, "key": "only", **STEPS[kind]}
    asked = (
        acme.ask("POST", "workflows", {"name": "Fuzz", "steps": [{**whole, setting: value}]})
        for setting, value in itertools.product(_SETTINGS, WRONG)
    )
    for some in _batches(asked, 32):
        for answer in await asyncio.gather(*some):
            tolerated(answer)
            made += answer.status == 200
    after = int((await acme.ask("GET", "workflows?take=1")).headers["pagination-count"])
    assert after - before == made


@pytest.mark.parametrize(
    "version", [0, -1, 999, 1.5, 10**30, "nope", "", "workv_" + "1" * 22, True, [], {}, "1 "]
)
async def test_versions_that_do_not_exist(acme: Caller, version: Any) -> None:
    workflow_id = await acme.push([STEP])
    body = {"workflow_version_id": version}
    refused(await acme.ask("POST", f"workflows/{workflow_id}/runs", body))
    if isinstance(version, str | int) and version not in ("", True):
        refused(await acme.ask("GET", f"workflows/{workflow_id}/versions/{version}"))
    assert await acme.ok("GET", f"workflows/{workflow_id}/runs") == []


async def test_five_thousand_steps(acme: Caller, bystander: None) -> None:
    steps = [
        {"type": "code", "key": f"s{i}", "code": f"return {i}", "destinations": [f"s{i + 1}"]}
        for i in range(5_000)
    ]
    steps[-1]["destinations"] = []
    workflow_id = await acme.push(steps)
    body = {"from_step_key": "s4990"}
    run = await acme.ok("POST", f"workflows/{workflow_id}/runs", body)
    assert (run["status"], run["result"], len(run["output"])) == ("COMPLETED", 4999, 10)
    several = await acme.ask("POST", "workflows", {"name": "x", "steps": steps * 3})
    refused(several)


def _asks(key: str, *tools: str, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "x"}]
    asked = {"provider": "mock", "model": "m", "messages": said, "tools": [*tools]}
    return {"type": "model", "key": key, "provider": asked, **more}


CYCLES: dict[str, list[dict[str, Any]]] = {
    "itself": [{**STEP, "destinations": ["only"]}],
    "two": [
        {**STEP, "key": "a", "destinations": ["b"]},
        {**STEP, "key": "b", "destinations": ["a"]},
    ],
    "branch": [
        {"type": "branch", "key": "a", "conditions": {}, "else": ["b"]},
        {**STEP, "key": "b", "destinations": ["a"]},
    ],
    "tool-of-itself": [_asks("a", "a")],
    "tool-that-leads-back": [_asks("a", "b"), {**STEP, "key": "b", "destinations": ["a"]}],
    "tools-of-each-other": [_asks("a", "b"), _asks("b", "a")],
    "long": [{**STEP, "key": f"k{i}", "destinations": [f"k{(i + 1) % 999}"]} for i in range(999)],
}


@pytest.mark.parametrize("name", CYCLES)
async def test_cycles_are_refused(acme: Caller, name: str) -> None:
    answer = await acme.ask("POST", "workflows", {"name": "x", "steps": CYCLES[name]})
    refused(answer)
    assert any("cycle" in error["code"] for error in answer.json()["errors"])


BOMBS = {
    "holes": "{{input.a}}" * 50_000,
    "braces": "{{" * 50_000,
    "nested": "{{" + "(" * 5_000 + ")" * 5_000 + "}}",
    "repeat": "{{'x'.repeat(536870000)}}",
    "doubling": "{{(() => { let s = 'x'; for (;;) s += s })()}}",
    "endless": "{{(() => { while (true) {} })()}}",
    "huge-list": "{{JSON.stringify(Array.from({length: 5000000}, (_, i) => [i]))}}",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_template_bombs_end_their_own_step(acme: Caller, bystander: None, name: str) -> None:
    step = http("only", "http://127.0.0.1:9/", body=BOMBS[name])
    made = await acme.ask("POST", "workflows", {"name": "Bomb", "steps": [step]})
    tolerated(made)
    if made.status != 200:
        return
    body = {"workflow_version_id": "draft", "limits": {"cpu": 0.5, "wall": 2}}
    answer = await acme.ask("POST", f"workflows/{made.json()['id']}/runs", body)
    tolerated(answer)
    if answer.status == 200:
        run = answer.json()
        assert run["status"] == "FAILED"
        assert run["error"]


async def test_keys_that_open_nothing(acme: Caller, callers: Clients) -> None:
    globex = await callers.app("Globex")
    path = f"/apps/{acme.app_id}/workflows"
    assert (await globex.ask("GET", path)).status == 404
    for key in ("", "ins_wrong", "x" * 5_000, "ins_" + "A" * 43, acme.key.upper(), "\u00e9"):
        stranger = Caller(acme.session, acme.served, "", key)
        answer = await stranger.ask("GET", "workflows")
        refused(answer)
        assert answer.status == 401
    for scheme in ("", "Basic abc", "Bearer", f"bearer  {acme.key} x"):
        headers = {"authorization": scheme}
        refused(await acme.ask("GET", "workflows", headers=headers))


@pytest.mark.parametrize(
    "path",
    [
        "workflows?page=0",
        "workflows?page=x",
        "workflows?take=1000",
        "workflows?take=-1",
        "workflows?next=garbage",
        "workflows?page=999999999999999999999",
        "runs?status=SOMETIMES",
        "runs?since=yesterday",
        "runs?since=%00",
        "workflows/%00/runs",
        "workflows/%ff%fe/runs",
        "workflows/..%2f..%2fapps/runs",
        "workflows/" + "x" * 8_000,
        "workflows/work_1/runs?verbose=some",
        "nothing",
    ],
)
async def test_queries_and_paths(acme: Caller, path: str) -> None:
    refused(await acme.ask("GET", path))


async def test_a_cursor_of_no_list_is_refused_by_each(acme: Caller, target: Target) -> None:
    made = await acme.ok(
        "POST", "webhooks", {"url": "http://127.0.0.1:9/x", "events": ["record.created"]}
    )
    ids = {
        "app_id": "c",
        "workflow_id": target.workflow_id,
        "collection_id": (await acme.ok("POST", "collections", {"name": "x"}))["id"],
        "webhook_id": made["id"],
    }
    paths = (await acme.ok("GET", "/openapi.json"))["paths"].items()
    asked = {path: one["get"].get("parameters", ()) for path, one in paths if "get" in one}
    lists = [path for path, of in asked.items() if any(each["name"] == "next" for each in of)]
    assert len(lists) > 18
    answers = {
        path: (await acme.ask("GET", f"{path.format(**ids)}?next={CURSOR}")).status
        for path in lists
    }
    # To see all apps takes the installation's key.
    assert answers == dict.fromkeys(lists, 400) | {"/apps": 403}


async def test_a_nul_in_any_id(acme: Caller, target: Target) -> None:
    """Text that one of the databases cannot even look for."""
    assert (await acme.ask("POST", "runs/cancel", {"workflow_id": "\0"})).status == 400
    assert (await acme.ask("POST", "workflows", {"name": "x", "tags_ids": ["\0"]})).status == 400
    calling = {"type": "workflow", "key": "child", "workflow_id": "{{'\\u0000'}}", "input": {}}
    service = {"type": "service", "key": "got", "service": {"FILES.GET": {"file": "\0"}}}
    field = {"type": "input", "key": "given", "input": {"a": {"type": "file"}}}
    for step in (calling, service):
        tolerated(await acme.ask("POST", "runs/step", {"step": step}))
        made = await acme.ask("POST", "workflows", {"name": "x", "steps": [step]})
        tolerated(made)
        if made.status == 200:
            body = {"workflow_version_id": "draft"}
            path = f"workflows/{made.json()['id']}/runs"
            assert (await acme.ok("POST", path, body))["status"] == "FAILED"
    refused(await acme.ask("GET", "runs?next=" + encode_cursor({"id": "\0"})))
    workflow_id = await acme.push([field])
    for given in ("\0", "file_\0", {"file_id": "\0"}, {"future_file_id": "file_\0"}):
        tolerated(await acme.ask("POST", f"workflows/{workflow_id}/runs", {"input": {"a": given}}))


async def test_huge_headers_end_one_connection_alone(acme: Caller, bystander: None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(acme.served.url.split(":")[2]))
    lines = b"".join(b"X-%d: %b\r\n" % (i, b"y" * 8_000) for i in range(100))
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
        await writer.drain()
        async with asyncio.timeout(20):
            answered = await reader.read(64)
        assert answered == b"" or b" 4" in answered[:14]
    except ConnectionError:
        pass  # it may break off while we write
    finally:
        writer.close()
    assert (await acme.ask("GET", "/healthz")).status == 200
    for name, value in (("idempotency-key", "x" * 10_000), ("last-event-id", "\u00ff" * 50)):
        tolerated(await acme.ask("POST", "workflows", {"name": "x"}, headers={name: value}))


async def test_one_bad_run_of_a_group_does_not_harm_the_others(acme: Caller) -> None:
    """Values that cannot be stored come at the same moment as values that can."""
    workflow_id = await acme.push([{**STEP, "code": "return input.value"}])
    path = f"workflows/{workflow_id}/runs"
    good = [json.dumps({"input": {"value": f"v{i}"}}).encode() for i in range(40)]
    bad = b'{"input": {"value": "\\ud800"}}', b'{"identifier": "\\u0000"}', b'{"input": 1}', DEEP
    mixed = [raw for pair in zip(good, itertools.cycle(bad), strict=False) for raw in pair]
    answers = await asyncio.gather(*(acme.ask("POST", path, raw=raw) for raw in mixed))
    for raw, answer in zip(mixed, answers, strict=True):
        if raw in bad:
            refused(answer)
        else:
            assert answer.status == 200
            assert answer.json()["result"] == json.loads(raw)["input"]["value"]
    count = (await acme.ask("GET", f"{path}?take=1")).headers["pagination-count"]
    assert int(count) == len(good)


@pytest.mark.parametrize(
    "code",
    [
        "return '\\ud800'",
        "return {'\\udc00': 1}",
        "return '\\u0000'",
        "return { toJSON() { throw new Error('no') } }",
        "return 10n",
        "const a = []; a.push(a); return a",
        "return () => 1",
        "console.log('\\ud800\\u0000'); return 1",
        "throw '\\ud800'",
        "return 'x'.repeat(6 * 1024 * 1024)",
        "let o = {}; for (let i = 0; i < 100000; i++) o = { o }; return o",
    ],
)
async def test_results_that_json_cannot_hold(acme: Caller, bystander: None, code: str) -> None:
    workflow_id = await acme.push([{**STEP, "code": code}])
    run = await acme.ok("POST", f"workflows/{workflow_id}/runs")
    assert run["status"] in ("COMPLETED", "FAILED")
    path = f"workflows/{workflow_id}/runs/{run['id']}"
    assert await acme.ok("GET", path) == run
