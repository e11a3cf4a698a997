"""*workflow*: a child run inside its parent's task."""

import asyncio
from typing import Any

import pytest
from tests.engine.stage import Stage, code, folded, play, settled, step

from insula.engine.events import StepEnded, StepStarted, UnitEnded, UnitStarted
from insula.engine.ports import ChildOutcome, ChildRequest, FinalStatus
from insula.engine.state import fold
from insula.kit import json
from insula.kit.json import Raw
from insula.testing import ListRecorder, ScriptedChildren

NOW = {"max": 2, "backoff": 0}


def child(**more: Any) -> dict[str, Any]:
    return step("workflow", "C", **{"input": {}, "workflow_id": "work_1", **more})


def ending(*statuses: FinalStatus, error: str | None = None) -> ScriptedChildren:
    left = list(statuses)

    def answer(request: ChildRequest) -> ChildOutcome:
        status = left.pop(0) if len(left) > 1 else left[0]
        output = json.raw({"run_id": request.run_id, "status": status})
        return ChildOutcome(status, output, error, credits=2.0)

    return ScriptedChildren(answer)


async def test_its_outcome_is_the_output() -> None:
    children = ending("COMPLETED")
    run = await play(child(step_key="IN", workflow_version_id=3), children=children)
    assert run.outputs == {"C": {"run_id": "run_1", "status": "COMPLETED"}}
    assert run.state.steps["C"].credits == 2
    (request,) = children.requests
    assert (request.run_id, request.parent_key, request.workflow_id) == ("run_1", "C", "work_1")
    assert (request.version, request.step_key, request.input) == (3, "IN", Raw(b"{}"))


async def test_latest_is_the_default_version() -> None:
    children = ending("COMPLETED")
    await play(child(), children=children)
    assert children.requests[0].version == "latest"


async def test_a_skipped_child_completes_the_step() -> None:
    assert (await play(child(), children=ending("SKIPPED"))).statuses == {"C": "COMPLETED"}


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [("FAILED", "it broke", "it broke"), ("CANCELLED", None, "The child run was cancelled")],
)
async def test_another_end_fails_the_step(
    status: FinalStatus, error: str | None, told: str
) -> None:
    run = await play(child(throw_on_error=False), children=ending(status, error=error))
    assert run.statuses == {"C": "FAILED"}
    assert run.outputs["C"]["status"] == status
    made = run.state.steps["C"]
    assert (made.error, made.code, made.credits) == (told, "child", 2)


async def test_a_retry_is_a_new_child() -> None:
    children = ending("FAILED", "FAILED", "COMPLETED")
    run = await play(child(retry=NOW), children=children)
    assert [request.run_id for request in children.requests] == ["run_1", "run_2", "run_3"]
    assert run.statuses == {"C": "COMPLETED"}
    assert run.state.steps["C"].credits == 6


async def test_its_id_is_stored_before_it_starts() -> None:
    class Slow(ListRecorder):
        async def stored(self) -> None:
            last = self.events[-1]
            assert isinstance(last, UnitStarted)
            assert last.child == "run_1"
            assert not children.requests

    children = ending("COMPLETED")
    await play(child(), children=children, recorder=Slow())
    assert len(children.requests) == 1


@pytest.mark.parametrize("interruptions", [1, 5])
async def test_after_an_interruption_the_same_child_goes_on(interruptions: int) -> None:
    events = [StepStarted(1, "C", "workflow"), UnitStarted(1, "C", 1, child="run_stored")]
    children = ending("COMPLETED")
    for _ in range(interruptions):  # it is no new attempt, however often
        children = ending("COMPLETED")
        run = await play(child(on_interrupt="fail"), children=children, state=fold(events))
        assert [request.run_id for request in children.requests] == ["run_stored"]
        assert run.state.steps["C"].attempts == 1


async def test_a_child_that_failed_before_the_crash_is_not_gone_on_with() -> None:
    events = [
        StepStarted(1, "C", "workflow"),
        UnitStarted(1, "C", 1, child="run_stored"),
        UnitEnded(2, "C", error="it broke", again=True),
    ]
    children = ending("COMPLETED")
    await play(child(retry=NOW), children=children, state=fold(events))
    assert [request.run_id for request in children.requests] == ["run_1"]


async def test_each_iteration_is_a_child() -> None:
    looped = child(loop="more(index)", input={"n": "{{item}}"})
    children = ending("COMPLETED")
    table = {"more(index)": lambda scope: scope["index"] + 1 if scope["index"] < 2 else None}
    run = await play(looped, children=children, table=table)
    assert [request.input for request in children.requests] == [Raw(b'{"n":1}'), Raw(b'{"n":2}')]
    assert [one["run_id"] for one in run.outputs["C"]] == ["run_1", "run_2"]
    assert run.state.steps["C"].credits == 4
    for length in range(len(run.events)):
        before = run.events[:length]
        again = ending("COMPLETED")
        resumed = await play(
            looped, children=again, table=table, state=folded(before), new_id=_lettered()
        )
        started = {e.child for e in before if isinstance(e, UnitStarted)}
        ended = sum(isinstance(e, UnitEnded) for e in before)
        if not any(isinstance(e, StepEnded) for e in before):
            assert len(again.requests) == 2 - ended
        assert started <= {one["run_id"] for one in resumed.outputs["C"]}
        assert len(resumed.outputs["C"]) == 2


def _lettered() -> Any:
    letters = iter("abcdef")
    return lambda prefix: f"{prefix}_{next(letters)}"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, {}),
        ("", {}),
        ({"a": "{{input.q}}", "b": ["{{input.n}} times"]}, {"a": {"x": 1}, "b": ["2 times"]}),
        ("{{input.q}}", {"x": 1}),
        ("{{input.text}}", {"y": 2}),
        ("{{input.gone}}", {}),
        ('{"a":"<{{input.hard}}>{{input.gone}}","b":{{input.n}}}', {"a": '<" \\\n>', "b": 2}),
        (' {"a":{{input.hard}},"b":{{input.gone}}}', {"a": '" \\\n', "b": None}),
        ('{"a":1{{input.more}}', {"a": 1, "b": 2}),
    ],
)
async def test_its_input_is_filled_in(given: object, wanted: object) -> None:
    children = ending("COMPLETED")
    mine = json.raw({"q": {"x": 1}, "n": 2, "text": '{"y":2}', "hard": '" \\\n', "more": ',"b":2}'})
    run = await play(child(input=given), children=children, input=mine)
    assert run.ended.error is None
    assert json.decode(children.requests[0].input) == wanted


@pytest.mark.parametrize("given", ["{{input.n}}", "no json", "[1]"])
async def test_another_input_fails_the_step(given: str) -> None:
    run = await play(child(input=given), children=ending("COMPLETED"), input=Raw(b'{"n":2}'))
    assert (run.ended.status, run.ended.code) == ("FAILED", "input")


async def test_its_names_are_settings_too() -> None:
    children = ending("COMPLETED")
    named = child(
        workflow_id="{{input.w}}", workflow_version_id="{{input.v}}", step_key="{{input.s}}"
    )
    await play(named, children=children, input=Raw(b'{"w":"work_9","v":"draft","s":"IN"}'))
    (request,) = children.requests
    assert (request.workflow_id, request.version, request.step_key) == ("work_9", "draft", "IN")


async def test_a_cancel_waits_for_the_child_and_carries_its_receipt() -> None:
    stopping = asyncio.get_running_loop().create_future()

    async def slow_to_stop(request: ChildRequest) -> ChildOutcome:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            await stopping

    children = ScriptedChildren(slow_to_stop)
    stage = Stage({**child(), "destinations": ["A"]}, code("A"), children=children).begin()
    await settled()
    stage.cancel()
    await settled()
    assert stage.task is not None
    assert not stage.task.done()
    stopping.set_result(None)
    run = await stage.end()
    assert run.statuses == {"C": "CANCELLED"}
    assert run.state.steps["C"].output == Raw(b'{"run_id":"run_1"}')
    told = run.ended.interruptions
    assert [(one.key, one.path) for one in told] == [("C", ()), ("CHILD", ("run_1",))]
    assert told[0].doing == "workflow step: child run run_1"


async def test_its_timeout_stops_the_child() -> None:
    stopped: list[str] = []

    async def never(request: ChildRequest) -> ChildOutcome:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            stopped.append(request.run_id)

    run = await play(child(timeout=0.001), children=ScriptedChildren(never, stopped_at=4.0))
    assert (run.ended.status, run.ended.code) == ("FAILED", "timeout")
    assert stopped == ["run_1"]
    assert run.state.credits == 4


async def test_a_child_that_is_cancelled_has_cost_what_it_had_until_then() -> None:
    async def once_in_vain(request: ChildRequest) -> ChildOutcome:
        if len(children.requests) == 1:
            return ChildOutcome("FAILED", Raw(b"{}"), "it broke", 2.0)
        return await asyncio.get_running_loop().create_future()

    children = ScriptedChildren(once_in_vain, stopped_at=4.0)
    stage = Stage(child(retry=NOW), children=children).begin()
    await settled()
    assert len(children.requests) == 2
    stage.cancel()
    run = await stage.end()
    assert run.statuses == {"C": "CANCELLED"}
    assert run.state.credits == 6
