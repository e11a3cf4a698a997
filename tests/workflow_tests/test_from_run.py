"""Tests of past runs: what was answered is played, nothing else is reached."""

import asyncio
from typing import Any

from tests.runs.platform import Platform, child, code, model

from insula.engine.events import (
    RunStarted,
    StepEnded,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.kit import json
from insula.workflow_tests.recording import Answer, record

PAGE = "http://away.test/x"


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
