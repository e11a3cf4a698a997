"""Tests of past runs: what was answered is played, nothing else is reached."""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

from tests.fetching import FetchingSandbox, get
from tests.runs.platform import Platform, child, code, model

from insula.engine.events import (
    RunStarted,
    StepEnded,
    StepStarted,
    UnitEnded,
    UnitStarted,
    encode_events,
)
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, Fetch, HttpRequest, HttpResponse
from insula.kit import json
from insula.testing import RecordedHttp
from insula.workflow_tests.recording import Answer, record

PAGE = "http://away.test/x"
ENDS = ["run.completed", "run.failed", "run.cancelled"]


def http(key: str, *to: str, **more: Any) -> dict[str, Any]:
    step = {"type": "http_request", "key": key, "method": "GET", "url": PAGE}
    return {**step, "destinations": list(to), **more}


async def test_a_run_becomes_a_test_that_reaches_nothing(platform: Platform) -> None:
    acme = platform.acme
    under = await acme.make(code("x", "return 3"))
    reply = {"text": "Hi"}
    flow = await acme.make(
        http("web", "ask"),
        model("ask", [reply], "low"),
        child("low", under, "many"),
        http("many", "last", loop="index < 2 ? 1 : null"),
        code("last", "return many.output"),
    )
    ran = await acme.run(flow, input={"n": 1})
    assert (ran["status"], len(platform.http.requests)) == ("COMPLETED", 3)
    children = len(await platform.rows("SELECT id FROM runs WHERE depth > 0"))
    items = [{"key": "k", "name": "k", "script": "ask.output.message"}]
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {"expectations": items})
    assert (made["recorded"], made["input"], made["status"]) == (True, {"n": 1}, "DRAFT")
    path = f"/workflows/{flow}/tests/{made['id']}/runs"
    done = await acme.ok("POST", path, {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", ran["result"]), done
    assert done["expectations"][0]["output"] == "Hi"
    low = [run["output"]["low"]["output"]["run_id"] for run in (ran, done["run"])]
    assert low[0] == low[1]
    assert len(platform.http.requests) == 3
    assert len(await platform.rows("SELECT id FROM runs WHERE depth > 0")) == children
    # The body says something else now, and one request more.
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [http("web", "extra"), http("extra")]})
    new = await acme.ok("POST", path, {})
    assert (new["status"], new["run"]["error_code"]) == ("FAILED", "not_available")
    assert "GET http://away.test/x is not in this test's recording" in new["run"]["error"]
    assert len(platform.http.requests) == 3
    # So is its replay: it is the same run.
    replayed = await acme.ok(
        "POST", f"/workflows/{flow}/runs/{done['run']['id']}/replay", {"stepKey": "web"}
    )
    assert (replayed["status"], len(platform.http.requests)) == ("COMPLETED", 3)


async def test_what_cannot_be_recorded_is_refused(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    flow = await acme.make(code("a", "wait(GO)"))
    run = await acme.run(flow, background=True)
    await platform.reached("GO")
    assert (await acme.ask("POST", f"/runs/{run['id']}/test", {})).status_code == 409
    platform.gate("GO").opened.set()
    await platform.idle()
    assert (await globex.ask("POST", f"/runs/{run['id']}/test", {})).status_code == 404
    await acme.ok("DELETE", f"/workflows/{flow}/runs/{run['id']}")
    assert (await acme.ask("POST", f"/runs/{run['id']}/test", {})).status_code == 409


async def test_a_deploy_may_need_its_tests(platform: Platform) -> None:
    acme = platform.acme
    flow = await acme.make(code("a", "return 1"))
    await acme.ok("PATCH", f"/workflows/{flow}", {"require_tests": True})
    items = [{"key": "k", "name": "k", "script": "result"}]
    body = {"name": "gives something", "expectations": items}
    test = (await acme.ok("POST", f"/workflows/{flow}/tests", body))["id"]
    await acme.ok("POST", f"/workflows/{flow}/tests/{test}/runs", {})
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 0")]})
    deploy = f"/workflows/{flow}/versions"
    untried = await acme.ask("POST", deploy, {})  # it has passed, but on another draft
    assert (untried.status_code, untried.json()["errors"][0]["code"]) == (409, "not_passed")
    failed = await acme.ok("POST", f"/workflows/{flow}/tests/{test}/runs", {})
    assert failed["status"] == "FAILED"
    refused = await acme.ask("POST", deploy, {})
    assert (refused.status_code, "gives something" in refused.json()["message"]) == (409, True)
    assert (await acme.ok("POST", deploy, {"force": True}))["version"] == 2
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 5")]})
    await acme.ok("POST", f"/workflows/{flow}/tests/{test}/runs", {})
    assert (await acme.ok("POST", deploy, {}))["version"] == 3


def test_what_is_recorded_is_what_the_outside_answered() -> None:
    one = json.raw({"status": 200})
    events = [
        RunStarted(1),
        StepStarted(1, "c", "code", 1),
        StepEnded(2, "c", "COMPLETED", output=json.raw(1)),
        StepStarted(2, "w", "http_request", looped=True),
        UnitStarted(2, "w", 1, index=0),
        UnitEnded(2, "w", index=0, error="no", again=True),
        UnitEnded(3, "w", index=0, output=one),
        StepEnded(3, "w", "COMPLETED"),
        StepStarted(3, "s", "service", 1),
        StepEnded(4, "s", "FAILED", error="refused", code="input"),
        StepStarted(4, "m", "model"),
        UnitEnded(5, "m", round=0, output=one),
        UnitStarted(5, "m", 1, round=0, call="t1", tool="f", tool_type="http_request"),
        UnitEnded(6, "m", round=0, call="t1", error="gone"),
        UnitStarted(6, "m", 1, round=0, call="t2", tool="g", tool_type="code"),
        UnitEnded(7, "m", round=0, call="t2", output=one),
        StepEnded(8, "m", "FAILED", error="overloaded", code="provider"),
    ]
    told = {"status": 200}
    assert json.decode(record(events)) == json.decode(
        json.encode(
            [
                Answer("w", index=0, output=told),
                Answer("s", error="refused", code="input"),
                Answer("m", round=0, output=told),
                Answer("m", round=0, call="t1", error="gone"),
                Answer("m", round=1, error="overloaded", code="provider"),
            ]
        )
    )


async def test_what_was_running_is_judged_after_a_restart(platform: Platform) -> None:
    """The rows as a process leaves them that died between a run's end and its judgment."""
    acme = platform.acme
    flow = await acme.make(code("a", "return 1"))
    made = [(await acme.ok("POST", f"/workflows/{flow}/tests", {"name": n}))["id"] for n in "abc"]
    for test in made:
        await acme.ok("POST", f"/workflows/{flow}/tests/{test}/runs", {})
    waiting = "UPDATE workflow_tests SET status = 'RUNNING', run_id = NULL WHERE id = :id"
    await platform.change(waiting, id=made[0])
    again = "UPDATE workflow_tests SET status = 'RUNNING' WHERE id = :id"
    await platform.change(again, id=made[1])
    lost = "UPDATE workflow_tests SET status = 'RUNNING', run_id = 'run_gone' WHERE id = :id"
    await platform.change(lost, id=made[2])

    async def running() -> int:
        return int((await acme.ok("GET", f"/workflows/{flow}/tests/stats"))["running_count"])

    async with asyncio.timeout(10):
        while await running():  # noqa: ASYNC110  # of what the database says
            await asyncio.sleep(0.02)
    shown = [await acme.ok("GET", f"/workflows/{flow}/tests/{test}") for test in made]
    assert [test["status"] for test in shown] == ["PASSED", "PASSED", "FAILED"]
    assert "gone" in shown[2]["error"]


SECRET = "planted-value"


def fetching(platform: Platform) -> RecordedHttp:
    """Let code fetch from a server that tells everything back."""

    async def ask(fetch: Fetch, scope: Mapping[str, Any]) -> list[str]:
        told = await fetch(get(f"http://away.test/{scope['variables']['TOKEN']}?n=1"))
        return [told.body.decode(), dict(told.headers)["x-echo"], told.url]

    def echo(request: HttpRequest) -> HttpResponse:
        assert request.secrets is not None
        sent = request.secrets.reveal(request).request.url
        return HttpResponse(200, (("x-echo", sent),), f"you asked {sent}".encode(), sent)

    sandbox = FetchingSandbox({"ask(variables.TOKEN)": ask}, platform.sandbox)
    platform.services.sandbox = sandbox
    http = platform.services.http = RecordedHttp(echo)  # type: ignore[assignment]  # a fake
    return http


async def test_what_code_fetched_is_played_and_holds_no_secret(platform: Platform) -> None:
    acme = platform.acme
    http = fetching(platform)
    await acme.ok("POST", "/variables", {"key": "TOKEN", "value": SECRET, "secret": True})
    flow = await acme.make(code("a", "ask(variables.TOKEN)", retention=-1))
    ran = await acme.run(flow)
    assert ran["result"][0] == "you asked http://away.test/•••?n=1"
    assert "fetched" not in json.encode(ran).decode()
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    path = f"/workflows/{flow}/tests/{made['id']}/runs"
    done = await acme.ok("POST", path, {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", ran["result"]), done
    assert len(http.requests) == 1
    events, _ = await platform.services.journal.read(ran["id"])
    recordings = await platform.rows("SELECT recording FROM workflow_tests")
    for text in (encode_events(events), zlib.decompress(bytes(recordings[0][0]))):
        assert b"you asked" in text
        assert SECRET.encode() not in text
    await acme.ok("DELETE", f"/workflows/{flow}/runs/{ran['id']}")
    for table in ("run_data", "run_events"):
        assert (
            await platform.rows(f"SELECT 1 FROM {table} WHERE run_id = :id", id=ran["id"]) == []
        )  # ours
    # The test has its own copy.
    assert (await acme.ok("POST", path, {}))["status"] == "PASSED"
    assert len(http.requests) == 1


async def test_a_test_of_a_replay_is_given_what_the_replay_kept(platform: Platform) -> None:
    acme = platform.acme
    http = fetching(platform)
    await acme.ok("POST", "/variables", {"key": "TOKEN", "value": SECRET, "secret": True})
    flow = await acme.make(
        code("a", "ask(variables.TOKEN)", "m", "c"),
        model("m", [{"text": "Hi"}], "c"),
        code("c", "return m.output.message"),
    )
    ran = await acme.run(flow)
    replayed = await acme.ok("POST", f"/workflows/{flow}/runs/{ran['id']}/replay", {"stepKey": "c"})
    made = await acme.ok("POST", f"/runs/{replayed['id']}/test", {})
    assert set(made["input_context"]) == {"a", "m"}
    done = await acme.ok("POST", f"/workflows/{flow}/tests/{made['id']}/runs", {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", "Hi"), done
    # So is a replay from the step that fetches: that is played.
    whole = await acme.ok("POST", f"/workflows/{flow}/runs/{ran['id']}/replay", {"stepKey": "a"})
    made = await acme.ok("POST", f"/runs/{whole['id']}/test", {})
    done = await acme.ok("POST", f"/workflows/{flow}/tests/{made['id']}/runs", {})
    assert done["run"]["output"]["a"] == whole["output"]["a"] | {
        n: done["run"]["output"]["a"][n] for n in ("start", "end")
    }
    assert len(http.requests) == 2


async def test_a_recorded_trigger_tells_what_it_told_then(platform: Platform) -> None:
    acme = platform.acme
    service = {"type": "SCHEDULER", "action": "ON_SCHEDULE", "input": {"schedule": "0 0 1 1 *"}}
    tick = {"type": "service", "key": "tick", "service": service, "destinations": ["last"]}
    flow = await acme.make(tick, code("last", "return tick.output.scheduled_at"))
    ran = await acme.run(flow)
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    assert made["input_context"] == {"tick": ran["output"]["tick"]["output"]}
    done = await acme.ok("POST", f"/workflows/{flow}/tests/{made['id']}/runs", {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", ran["result"])


async def test_what_a_test_gave_its_run_is_given_to_a_test_of_that(platform: Platform) -> None:
    acme = platform.acme
    flow = await acme.make(http("web", "a"), code("a", "return 1", "b"), code("b", "a.output"))
    given = {"web": {"status": 200, "body": "given"}, "a": 42}
    body = {"name": "T", "input_context": given}
    path = f"/workflows/{flow}/tests"
    first = await acme.ok("POST", path, body)
    ran = (await acme.ok("POST", f"{path}/{first['id']}/runs", {}))["run"]
    await acme.ok("PATCH", f"{path}/{first['id']}", {"input_context": None})  # it is its own
    again = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    assert again["input_context"] == given
    done = await acme.ok("POST", f"{path}/{again['id']}/runs", {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", 42)
    # A replay of that run does one of them itself.
    replayed = await acme.ok("POST", f"/workflows/{flow}/runs/{ran['id']}/replay", {"stepKey": "a"})
    once_more = await acme.ok("POST", f"/runs/{replayed['id']}/test", {})
    assert (replayed["result"], set(once_more["input_context"])) == (1, {"web"})


async def test_nobody_waits_before_a_recorded_failure_is_tried_again(platform: Platform) -> None:
    async def refuse(request: HttpRequest, activity: Activity) -> NoReturn:
        raise StepFailure("refused", "network")

    vars(platform.http)["send"] = refuse
    acme = platform.acme
    flow = await acme.make(http("web", retry={"max": 2, "backoff": 0}, throw_on_error=False))
    ran = await acme.run(flow)
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    patient = http("web", retry={"max": 2, "backoff": 3600}, throw_on_error=False)
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [patient]})
    done = await acme.ok("POST", f"/workflows/{flow}/tests/{made['id']}/runs", {})
    assert done["run"]["output"]["web"]["error"] == ran["output"]["web"]["error"]


async def test_the_run_of_a_recorded_test_changes_nothing(platform: Platform) -> None:
    """A file is deleted by the run, and not by the tests that are made of it."""
    acme = platform.acme

    async def stored() -> str:
        file = {"data": "aGVsbG8=", "name": "a.txt", "type": "text/plain"}
        return str((await acme.ok("POST", "/files", {"file": file}))["id"])

    delete = {"type": "FILES", "action": "DELETE_FILE", "input": {"file_id": "{{input.file}}"}}
    fields = {"file": {"type": "string"}}
    flow = await acme.make(
        {"type": "input", "key": "start", "input": fields, "destinations": ["s"]},
        {"type": "service", "key": "s", "service": delete},
    )
    await acme.ok("POST", "/webhooks", {"url": "https://a.test/", "events": [], "run_events": ENDS})
    ran = await acme.run(flow, input={"file": await stored()})
    assert ran["status"] == "COMPLETED", ran
    told = await platform.rows("SELECT id FROM deliveries")
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    kept = await stored()
    await acme.ok("PATCH", f"/workflows/{flow}/tests/{made['id']}", {"input": {"file": kept}})
    done = await acme.ok("POST", f"/workflows/{flow}/tests/{made['id']}/runs", {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", ran["result"]), done
    assert (await acme.ok("GET", f"/files/{kept}"))["id"] == kept
    assert await platform.rows("SELECT id FROM deliveries") == told


async def test_a_test_keeps_the_files_of_its_run(platform: Platform) -> None:
    acme = platform.acme
    fields = {"doc": {"type": "file", "order": 0}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["a"]}
    flow = await acme.make(start, code("a", "return input.doc.id"))
    doc = {"data": "hello", "name": "a.txt", "encoding": "raw"}
    ran = await acme.run(flow, input={"doc": doc})
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    await acme.ok("DELETE", f"/workflows/{flow}/runs/{ran['id']}")
    own = made["input"]["doc"]["id"]
    assert own != ran["input"]["doc"]["id"]
    await platform.change("UPDATE files SET expires_at = 1")
    await platform.services.files.sweep()
    assert (await acme.ok("GET", f"/files/{own}"))["file_size"] == 5
    done = await acme.ok("POST", f"/workflows/{flow}/tests/{made['id']}/runs", {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", own)
    await acme.ok("DELETE", f"/workflows/{flow}/tests/{made['id']}")
    assert await platform.rows("SELECT id FROM files") == []


async def test_nothing_is_downloaded_for_a_recorded_test(platform: Platform) -> None:
    """Wherever the address stands: in the draft's configuration, the test's, or its input."""
    acme = platform.acme
    doc = {"data": "hello", "name": "a.txt", "encoding": "raw"}
    own = (await acme.ok("POST", "/files", {"file": doc}))["file_url"]
    fields = {"logo": {"type": "file", "config": True, "optional": True}}
    steps = [
        {"type": "input", "key": "start", "input": fields, "destinations": ["a"]},
        code("a", "return 1"),
    ]
    flow = await acme.make(*steps)
    made = await acme.ok("POST", f"/runs/{(await acme.run(flow))['id']}/test", {})
    test = f"/workflows/{flow}/tests/{made['id']}"
    asked: list[HttpRequest] = []

    def refuse(request: HttpRequest, activity: Activity) -> NoReturn:
        asked.append(request)
        raise AssertionError(request.url)

    vars(platform.services.files.store.http)["open"] = refuse
    places = ((f"/workflows/{flow}", "input_default"), (test, "input_default"), (test, "input"))
    for where, field in places:
        await acme.ok("PATCH", where, {field: {"logo": PAGE}})
        done = await acme.ok("POST", test + "/runs", {})
        assert (done["status"], done["run"], asked) == ("FAILED", None, [])
        assert done["error"].startswith("input.logo is an address elsewhere")
        await acme.ok("PATCH", where, {field: {"logo": own}})
        assert (await acme.ok("POST", test + "/runs", {}))["status"] == "PASSED"


async def test_files_of_tests_go_with_the_workflow(platform: Platform) -> None:
    acme = platform.acme
    fields = {"doc": {"type": "file", "order": 0}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["a"]}
    flow = await acme.make(start, code("a", "return 1"))
    doc = {"data": "hello", "name": "a.txt", "encoding": "raw"}
    ran = await acme.run(flow, input={"doc": doc})
    await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    await acme.ok("DELETE", f"/workflows/{flow}")
    rows = await platform.rows("SELECT run_id FROM files")
    assert [row.run_id for row in rows if row.run_id.startswith("test_")] == []


async def test_a_repeat_finds_the_test_though_its_run_is_gone(platform: Platform) -> None:
    acme, headers = platform.acme, {"idempotency-key": "one"}
    start = {"type": "input", "key": "start", "input": {"doc": {"type": "file"}}}
    flow = await acme.make({**start, "destinations": ["x"]}, code("x", "return 3"))
    ran = await acme.run(flow, input={"doc": {"data": "eA==", "name": "a.txt"}})
    path = f"/runs/{ran['id']}/test"
    made = await acme.ok("POST", path, {}, headers=headers)
    files = len(await platform.rows("SELECT id FROM files"))
    assert (await acme.ok("POST", path, {}, headers=headers))["id"] == made["id"]
    assert len(await platform.rows("SELECT id FROM files")) == files
    assert (await acme.ask("POST", path, {"name": "x"}, headers=headers)).status_code == 422
    await acme.ok("DELETE", f"/workflows/{flow}/runs/{ran['id']}")
    assert (await acme.ask("POST", path, {})).status_code in (404, 409)
    assert (await acme.ok("POST", path, {}, headers=headers))["id"] == made["id"]
    await acme.ok("DELETE", f"/workflows/{flow}/tests/{made['id']}")
    assert (await acme.ask("POST", path, {}, headers=headers)).status_code == 404
