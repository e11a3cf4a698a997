"""What steps put out, each by the contract's schema of its own type: the union accepts anything."""

from typing import Any

import pytest

from tests import contract
from tests.acceptance.harness import Caller, Clients, Event, shaped
from tests.acceptance.kinds import http
from tests.acceptance.loopback import Loopback

SCHEMAS = {
    "branch": "StepBranchConditionOutputSchema",
    "code": "StepCodeOutputSchema",
    "model": "StepModelOutputSchema",
    "http_request": "StepHttpRequestOutputSchema",
    "workflow": "StepWorkflowOutputSchema",
}
SAID = {"role": "user", "content": "say"}


def check_output(kind: str, output: Any) -> None:
    """Check one output, or each of a loop's, against the schema of its type and nothing else.

    As ``shaped``: without the contract it is left out, and the run's summary says so.
    """
    if kind not in SCHEMAS or not contract.ContractFile.present:
        return
    schema = contract.document()["components"]["schemas"][SCHEMAS[kind]]
    for one in output if isinstance(output, list) and kind != "code" else [output]:
        contract.validate(one, SCHEMAS[kind])
        if "properties" in schema:
            assert one.keys() <= schema["properties"].keys()


def check_step(step: dict[str, Any]) -> None:
    """Check a step by its status, its output by its type, and its calls by theirs."""
    shaped(step, f"RunStep{step['status'].capitalize()}OutputSchema")
    if step["status"] == "COMPLETED":
        check_output(step["type"], step["output"])
        assert step["end"] >= step["start"]
    for call in step.get("calls", []):
        shaped(call, "RunStepOutputCallSchema")
        if call["status"] == "COMPLETED":
            check_output(call["type"], call["output"])


def _model(key: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    script = {"replies": list(replies)}
    asked = {"provider": "mock", "model": "m", "messages": [SAID], "mock": script, **more}
    return {"type": "model", "key": key, "provider": asked}


def _code(key: str, text: str, **more: Any) -> dict[str, Any]:
    return {"type": "code", "key": key, "code": text, **more}


def _everything(url: str, child: str) -> list[dict[str, Any]]:
    """One step of every type and every way to end."""
    calls = {"tool_calls": [{"name": "look", "input": {"a": 1}}, {"name": "child", "input": {}}]}
    outside = {"tool_calls": [{"name": "ask", "input": {"q": 1}}]}
    condition = {"condition": "given.output.text === 'x'", "destinations": [], "order": 0}
    runs = {"type": "workflow", "workflow_id": child, "input": {}}
    keys = ["sort", "plain", "logs", "each", "none", "skipped", "fails", "asks", "says", "json"]
    keys += ["refuses", "outside", "calls", "gets", "gets_each", "runs", "runs_each", "away"]
    return [
        {
            "type": "input",
            "key": "given",
            "input": {"text": {"type": "string"}, "doc": {"type": "file", "optional": True}},
            "destinations": keys,
        },
        {"type": "note", "key": "remark", "note": "Only read by people."},
        {"type": "branch", "key": "sort", "conditions": {"is_x": condition}, "else": []},
        _code("plain", "return { a: [1, null, 'x'] }"),
        _code("logs", "console.log('a', { b: 1 }); console.error(2)"),
        _code("each", "return item", loop="[1, 'b', { c: 1 }][index]"),
        _code("none", "return item", loop="null"),
        _code("skipped", "return 1", conditional="false"),
        _code("fails", "throw new Error('no')", throw_on_error=False),
        _model("asks", {"text": "some words", "usage": {"input_tokens": 5}}),
        {**_model("says", {"text": "some words"}), "loop": "index < 2 ? index + 1 : null"},
        _model("json", {"json": {"a": 1}}, response_format="json"),
        _model("refuses", {"refusal": "I will not"}),
        _model("outside", outside, tools=["external:ask"]),
        _model("calls", calls, {"text": "done"}, tools=["look", "child"]),
        _code("look", "return args"),
        {**runs, "key": "child"},
        http("gets", f"{url}/ok/x"),
        http("gets_each", f"{url}/ok/{{{{index}}}}", loop="index < 2 ? index + 1 : null"),
        {**runs, "key": "runs"},
        {**runs, "key": "runs_each", "loop": "index < 2 ? index + 1 : null"},
        http("away", "http://127.0.0.1:9/", throw_on_error=False),
    ]


@pytest.fixture
async def caller(callers: Clients) -> Caller:
    return await callers.app("Acme")


async def test_every_type_of_step_keeps_its_promise(caller: Caller, loopback: Loopback) -> None:
    child = await caller.push([_code("only", "return { result: 7 }")], name="Child")
    workflow_id = await caller.push(_everything(loopback.url, child))
    path = f"workflows/{workflow_id}/runs"
    document = {"name": "a.txt", "data": "aGVsbG8=", "encoding": "base64"}
    body = {"input": {"text": "x", "doc": document}, "stream": True}
    async with caller.stream(path, body) as stream:
        events = await stream.to_the_end()
    run = await caller.ok("GET", f"{path}/{events[-1].data['id']}?verbose=all")
    shaped(run, "RunSchema")
    assert run["status"] == "COMPLETED"
    for step in run["output"].values():
        check_step(step)
    statuses = {key: step["status"] for key, step in run["output"].items()}
    assert statuses.pop("skipped") == "SKIPPED"
    assert statuses.pop("fails") == statuses.pop("away") == "FAILED"
    assert set(statuses.values()) == {"COMPLETED"}
    assert "remark" not in statuses
    assert "look" not in statuses
    shaped(run["output"]["given"]["output"]["doc"], "AppFileSchema")
    _check_told(events)


def _check_told(events: list[Event]) -> None:
    """Check what a stream tells, event by event."""
    for event in events:
        if event.name == "run":
            shaped(event.data, "RunSchema")
        elif event.name == "step":
            shaped(event.data, "RunStepOutputSchema")
            if event.data["status"] != "RUNNING":
                check_step(event.data)
        else:
            assert event.name == "chunk"
            assert event.data["status"] == "RUNNING"
            assert event.data.keys() <= {"key", "status", "output", "calls"}
            output = event.data.get("output")
            if output is not None:
                shaped(output, "StepModelOutputSchema")
                assert output["model"] == "m"
            for call in event.data.get("calls", []):
                shaped(call, "RunStepOutputCallSchema")


async def test_a_run_that_is_still_running_has_its_shape(
    caller: Caller, loopback: Loopback
) -> None:
    steps = _everything(loopback.url, "work_1")
    slow = [{"text": "word " * 500, "token_delay_ms": 20}]
    steps = [steps[0] | {"destinations": ["asks", "waits"]}, _model("asks", *slow)]
    steps.append(http("waits", f"{loopback.url}/hang/running"))
    workflow_id = await caller.push(steps)
    path = f"workflows/{workflow_id}/runs"
    async with caller.stream(path, {"input": {"text": "x"}, "stream": True}) as stream:
        run_id = await stream.run_id()
        await stream.chunks("asks", 3)
        await loopback.arrived("running")
        run = await caller.ok("GET", f"{path}/{run_id}")
        shaped(run, "RunSchema")
        assert {step["status"] for step in run["output"].values()} == {"COMPLETED", "RUNNING"}
        for listed in await caller.ok("GET", path):
            shaped(listed, "RunSchema")
        for step in run["output"].values():
            check_step(step)
        cancelled = await caller.ok("POST", f"{path}/{run_id}/cancel")
    assert cancelled["output"]["asks"]["output"]["message"].startswith("word word ")
    for step in cancelled["output"].values():
        check_step(step)


@pytest.mark.parametrize(
    "step",
    [
        _code("only", "return 1"),
        _model("only", {"text": "some words"}),
        {
            "type": "branch",
            "key": "only",
            "conditions": {"yes": {"condition": "true", "destinations": [], "order": 0}},
        },
    ],
    ids=lambda step: step["type"],
)
async def test_a_single_step_has_its_shape(caller: Caller, step: dict[str, Any]) -> None:
    ran = await caller.ok("POST", "runs/step", {"step": step})
    shaped(ran, "RunStepSchema")
    assert ran["status"] == "COMPLETED"
    check_output(step["type"], ran["output"])
    assert await caller.ok("GET", "runs") == []
