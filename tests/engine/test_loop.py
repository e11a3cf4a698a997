"""Loops: items, order, the cap, failing iterations."""

from dataclasses import replace
from typing import Any

import pytest
from tests.engine.stage import (
    Gates,
    Stage,
    branch,
    code,
    document,
    model,
    play,
    scripted,
    settled,
    step,
)

from insula.engine.document import CodeStep
from insula.engine.failures import StepFailure
from insula.engine.loop import loop_of
from insula.engine.ports import Activity, Evaluated, Evaluation
from insula.kit import json
from insula.kit.json import Raw
from insula.testing import UNDEFINED, ScriptedModels, ScriptedSandbox

LOOP = code("A", loop="next(index)", code="work(item, index)")


def items(*given: Any) -> dict[str, Any]:
    """Give these items in order, and work that returns what it sees."""
    return {
        "next(index)": lambda s: given[s["index"]] if s["index"] < len(given) else None,
        "work(item, index)": lambda s: [s["index"], s["item"]],
    }


async def test_one_iteration_after_another() -> None:
    run = await play(LOOP, table=items("a", "b"))
    assert run.outputs == {"A": [[0, "a"], [1, "b"]]}
    assert run.scripts == ["next(index)", "work(item, index)"] * 2 + ["next(index)"]
    assert run.state.steps["A"].looped


@pytest.mark.parametrize("end", [None, False, UNDEFINED])
async def test_what_ends_it(end: object) -> None:
    run = await play(LOOP, table=items(1, end, 2))
    assert run.outputs == {"A": [[0, 1]]}


async def test_other_false_values_are_items() -> None:
    run = await play(LOOP, table=items(0, "", [], {}))
    assert [item for _, item in run.outputs["A"]] == [0, "", [], {}]


async def test_an_item_may_be_written_as_null() -> None:
    """Only the sandbox knows of what it is: a number that is none, or an object."""

    class Written(ScriptedSandbox):
        async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
            done = await super().evaluate(evaluation, activity)
            return replace(done, outputs=(Raw(b"null"),)) if at(evaluation) == 1 else done

    def at(evaluation: Evaluation) -> object:
        asks = evaluation.scripts == ("next(index)",)
        return json.decode(evaluation.scope["index"]) if asks else None

    run = await play(LOOP, sandbox=Written(scripted(items("a", "b", "c"))))
    assert run.outputs == {"A": [[0, "a"], [1, None], [2, "c"]]}


async def test_no_items_complete_with_an_empty_list() -> None:
    run = await play(LOOP, table=items())
    assert (run.statuses, run.outputs) == ({"A": "COMPLETED"}, {"A": []})
    assert run.result == []


async def test_the_cap_fails_the_step_and_says_so() -> None:
    endless = {**LOOP, "throw_on_error": False}
    run = await play(
        endless, table={**items(), "next(index)": 1, "work(item, index)": 1}, max_iterations=4
    )
    assert (run.statuses, run.outputs) == ({"A": "FAILED"}, {"A": [1, 1, 1, 1]})
    assert "more than 4 items" in (run.state.steps["A"].error or "")
    assert run.state.steps["A"].code == "limit_iterations"


async def test_so_many_as_the_cap_are_allowed() -> None:
    run = await play(LOOP, table=items(1, 2, 3, 4), max_iterations=4)
    assert run.ended.status == "COMPLETED"


async def test_ten_thousand_are_the_default() -> None:
    table = {"next(index)": 1, "work(item, index)": 1}
    run = await play(LOOP, table=table)
    assert (run.ended.status, run.ended.code) == ("FAILED", "limit_iterations")
    assert len(run.outputs["A"]) == 10_000


def _fails_at(place: int) -> Any:
    def work(scope: Any) -> Any:
        if scope["index"] == place:
            raise StepFailure("no more", "script")
        return scope["index"]

    return work


async def test_the_first_failing_iteration_ends_it() -> None:
    steps = [{**LOOP, "destinations": ["B"], "throw_on_error": False}, code("B")]
    table = {**items(1, 2, 3, 4), "work(item, index)": _fails_at(2)}
    run = await play(*steps, table=table)
    assert run.statuses == {"A": "FAILED", "B": "COMPLETED"}
    assert (run.outputs["A"], run.state.steps["A"].error) == ([0, 1], "no more")
    thrown = await play(LOOP, table=table)
    assert (thrown.ended.status, thrown.ended.error) == ("FAILED", "no more")


async def test_a_failing_child_does_not_replace_the_list() -> None:
    failing = step("workflow", "A", input={}, loop="next(index)", throw_on_error=False)
    run = await play(failing, table=items(1))
    assert (run.statuses, run.outputs) == ({"A": "FAILED"}, {"A": []})


async def test_its_script_may_fail() -> None:
    table = {"next(index)": StepFailure("no list", "script")}
    run = await play({**LOOP, "throw_on_error": False}, table=table)
    assert (run.statuses, run.outputs) == ({"A": "FAILED"}, {"A": []})


async def test_the_conditional_is_asked_once_before() -> None:
    run = await play({**LOOP, "conditional": "ask"}, table=items(1, 2))
    assert run.scripts.count("ask") == 1
    skipped = await play({**LOOP, "conditional": "ask"}, table={**items(1), "ask": False})
    assert skipped.scripts == ["ask"]


async def test_a_cancelled_loop_keeps_the_list_so_far_and_says_where_it_was() -> None:
    gates = Gates()
    stage = Stage(LOOP, table=items("a", "b", "c"), pause=gates).begin()
    for _ in range(3):
        await settled()
        gates.let()
    await settled()
    stage.cancel()
    run = await stage.end()
    assert (run.statuses, run.outputs) == ({"A": "CANCELLED"}, {"A": [[0, "a"]]})
    assert run.ended.interruptions[0].doing == "code step, iteration 1: evaluating"


async def test_a_looped_model_streams_its_index(model_replies: Any) -> None:
    looped = model("M", messages="About {{item}}", more={"loop": "next(index)"})
    models = ScriptedModels([model_replies("one"), model_replies("two")])
    run = await play(looped, table=items("a", "b"), models=models)
    assert [(o["message"], o["index"]) for o in run.outputs["M"]] == [("one", 0), ("two", 1)]
    assert [r.messages[0]["content"] for r in models.requests] == ["About a", "About b"]
    chunks = [e for e in run.events if type(e).__name__ == "Chunk"]
    assert [(c.text, c.index) for c in chunks] == [("one", 0), ("two", 1)]
    assert run.state.steps["M"].credits == 2


async def test_what_is_never_looped() -> None:
    body = document(step("input", "I", input={}, loop="x"), {**branch("B", {}), "loop": "x"})
    assert [loop_of(one) for one in body.steps] == [None, None]
    assert loop_of(CodeStep(key="A", code="", loop=" ")) is None
