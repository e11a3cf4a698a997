"""Child runs: whose rights they have, how deep and how many they may be, and what they cost."""

from typing import Any
from unittest.mock import AsyncMock

import pytest
from tests.contract import validate
from tests.runs.platform import Platform, child, code, model

from insula.engine.ports import Activity, Evaluated, Evaluation
from insula.runs import child_start
from insula.runs.erasing import erase_due


async def test_a_child_is_a_run_of_the_root_s_caller(platform: Platform) -> None:
    inner = await platform.acme.publish(
        model("m", [{"text": "x", "credits": 3}], "z"), code("z", 'return {"result": 7}')
    )
    outer = await platform.acme.publish(
        child("o", inner, "after", input={"n": 1}), code("after", "return o.output.result")
    )
    run = await platform.globex.discover(outer)
    assert (run["status"], run["result"]) == ("COMPLETED", 7)
    output = run["output"]["o"]["output"]
    validate(output, "StepWorkflowOutputSchema")
    assert output["app_id"] == platform.globex.id
    assert output["workflow_app_id"] == platform.acme.id
    assert output["origin"] == "WORKFLOW"
    assert output["usage"]["total"] == 3
    assert run["usage"]["total"] == 3
    assert run["usage"]["steps"]["o"]["total"] == 3
    seen = await platform.globex.ok("GET", f"/workflows/discover/{inner}/runs/{output['run_id']}")
    assert (seen["input"], seen["parent_run_id"]) == ({"n": 1}, run["id"])


async def test_a_child_that_is_stopped_costs_its_parent_what_it_has_cost(
    platform: Platform,
) -> None:
    inner = await platform.acme.make(
        model("m", [{"text": "x", "credits": 4}], "z"), code("z", "wait(g)")
    )
    outer = await platform.acme.publish(child("o", await platform.acme.make(child("p", inner))))
    run = await platform.globex.discover(outer, background=True)
    await platform.reached("g")
    path = f"/workflows/discover/{outer}/runs/{run['id']}/cancel"
    cancelled = await platform.globex.ok("POST", path)
    assert (cancelled["status"], cancelled["usage"]["steps"]["o"]["total"]) == ("CANCELLED", 4)
    below = cancelled["output"]["o"]["output"]
    validate(below, "StepWorkflowOutputSchema")
    assert (below["status"], below["output"]["p"]["status"]) == ("CANCELLED", "CANCELLED")
    steps = below["output"]["p"]["output"]["output"]
    assert {key: step["status"] for key, step in steps.items()} == {
        "m": "COMPLETED",
        "z": "CANCELLED",
    }
    assert await platform.rows("SELECT credits FROM runs") == [(4,)] * 3


async def test_code_is_evaluated_as_its_owner_s_for_the_caller(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, evaluate = {}, platform.sandbox.evaluate

    async def told(evaluation: Evaluation, activity: Activity) -> Evaluated:
        seen[evaluation.scripts[0]] = evaluation.worker_of
        return await evaluate(evaluation, activity)

    monkeypatch.setattr(platform.sandbox, "evaluate", told)
    inner = await platform.acme.publish(code("z", "return 1"))
    outer = await platform.acme.publish(child("o", inner, "after"), code("after", "return 2"))
    own = await platform.globex.make(child("o", outer, "mine"), code("mine", "return 3"))
    assert (await platform.globex.run(own))["status"] == "COMPLETED"
    caller, owner = platform.globex.id, platform.acme.id
    assert seen == {
        "return 1": (caller, owner),
        "return 2": (caller, owner),
        "return 3": (caller, caller),
    }


async def test_the_owner_of_the_parent_decides_what_it_may_call(platform: Platform) -> None:
    secret = await platform.acme.make(code("z", "return 7"))
    outer = await platform.acme.publish(child("o", secret))
    assert (await platform.globex.discover(outer))["status"] == "COMPLETED"
    stranger = await platform.globex.make(child("o", secret))
    run = await platform.globex.run(stranger)
    assert run["status"] == "FAILED"
    assert run["error_code"] == "child"
    nothing = await platform.globex.run(await platform.globex.make(child("o", "work_nothing")))
    assert nothing["error"] == run["error"]


async def test_a_step_tells_what_is_wrong_with_its_child_s_input(platform: Platform) -> None:
    fields = {name: {"type": "number", "order": at} for at, name in enumerate("abcdef")}
    inner = await platform.acme.make({"type": "input", "key": "i", "input": fields})
    given = {"a": "x", "b": 1, "c": 1, "d": 1, "e": 1, "f": 1}
    run = await platform.acme.run(await platform.acme.make(child("o", inner, input=given)))
    assert run["error"] == "The input cannot be used: input.a is a text; give a number"
    run = await platform.acme.run(await platform.acme.make(child("o", inner)))
    assert run["error"].count("is missing") == 3
    assert run["error"].endswith("; and 3 more")


async def test_a_tree_is_only_so_deep(platform: Platform) -> None:
    flow = await platform.acme.make(code("z", "return 1"))
    for _ in range(15):
        flow = await platform.acme.make(child("o", flow))
    run = await platform.acme.run(flow)
    assert run["status"] == "COMPLETED"
    assert await platform.rows("SELECT max(depth) AS d, count(*) AS n FROM runs") == [(15, 16)]
    deeper = await platform.acme.run(await platform.acme.make(child("o", flow)))
    assert deeper["status"] == "FAILED"
    assert "16" in deeper["error"]


async def test_a_tree_has_only_so_many_runs(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.runs.child_start.MAX_TREE", 4)
    inner = await platform.acme.make(code("z", "return 1"))
    outer = await platform.acme.make(child("o", inner, loop="index < 5 ? 1 : null"))
    run = await platform.acme.run(outer)
    assert (run["status"], len(run["output"]["o"]["output"])) == ("FAILED", 3)
    assert await platform.rows("SELECT count(*) AS n FROM runs") == [(4,)]


async def test_a_closed_child_shows_its_caller_s_parent_what_callers_see(
    platform: Platform,
) -> None:
    closed = await platform.globex.publish(
        code("hidden", 'return "inside"', "shown"),
        code("shown", "return 1", "bad", "ok"),
        code("ok", "return 2"),
        code("bad", "fail(inside)", "last", throw_on_error=False),
        code("last", "return 3"),
        open=False,
    )
    failing = await platform.globex.publish(
        code("hidden", "fail(inside)", "last"), code("last", "return 3"), open=False
    )
    outer = await platform.acme.make(child("o", closed))
    run = await platform.acme.run(outer)
    output = run["output"]["o"]["output"]
    assert set(output["output"]) == {"ok", "last"}
    assert output["usage"]["steps"] == {}
    assert "inside" not in str(run)
    broken = await platform.acme.run(await platform.acme.make(child("o", failing)))
    assert (broken["status"], broken["error"]) == ("FAILED", "A step failed")
    assert broken["output"]["o"]["output"]["error"] == "A step failed"
    assert "inside" not in str(broken)
    own = await platform.globex.run(await platform.globex.make(child("o", closed)))
    assert set(own["output"]["o"]["output"]["output"]) == {"hidden", "shown", "ok", "bad", "last"}


@pytest.mark.parametrize("what", ["closed", "hidden"])
async def test_a_receipt_says_only_how_many_were_interrupted_out_of_sight(
    platform: Platform, what: str
) -> None:
    if what == "closed":
        inner = await platform.acme.publish(
            code("z", "wait(g)", "y"), code("y", "return 1"), open=False
        )
    else:
        inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.publish(child("o", inner))
    run = await platform.globex.discover(outer, background=True)
    await platform.reached("g")
    path = f"/workflows/discover/{outer}/runs/{run['id']}/cancel"
    answer = await platform.globex.ok("POST", path, params={"verbose": "all"})
    receipt = answer["cancellation"]
    assert [one["key"] for one in receipt["interrupted"]] == ["o"]
    assert receipt["interrupted_hidden"] == 1


async def test_a_child_s_input_is_checked(platform: Platform) -> None:
    fields = {"n": {"type": "number", "order": 0}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["z"]}
    inner = await platform.acme.make(start, code("z", "return input.n"))
    good = await platform.acme.run(await platform.acme.make(child("o", inner, input={"n": 4})))
    assert good["output"]["o"]["output"]["result"] == 4
    bad = await platform.acme.run(await platform.acme.make(child("o", inner, input={"n": "x"})))
    assert (bad["status"], bad["error_code"]) == ("FAILED", "child")


async def test_a_failing_child_fails_its_step_unless_that_goes_on(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "fail(words)"))
    outer = await platform.acme.make(
        child("o", inner, "after", throw_on_error=False), code("after", "return 2")
    )
    run = await platform.acme.run(outer)
    assert (run["status"], run["result"]) == ("COMPLETED", 2)
    step: Any = run["output"]["o"]
    assert (step["status"], step["error"]) == ("FAILED", "It failed: words")
    assert step["output"]["status"] == "FAILED"


async def test_a_failing_step_stops_children_beside_it(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.make(child("o", inner), code("b", "wait(f)", "c"), code("c", "1"))
    failing = await platform.acme.make(child("o", inner), code("b", "fail(x)"))
    run = await platform.acme.run(failing)
    assert run["status"] == "FAILED"
    rows = await platform.rows("SELECT status FROM runs WHERE depth = 1")
    assert {row.status for row in rows} <= {"CANCELLED"}
    limited = await platform.acme.run(outer, timeout=0.1)
    assert limited["error_code"] == "timeout"
    assert not await platform.rows("SELECT id FROM runs WHERE ended_at IS NULL")


async def test_what_hidden_steps_give_to_a_child_is_hidden_with_it(platform: Platform) -> None:
    public = await platform.acme.publish(code("z", "return 1"))
    hidden = await platform.acme.publish(
        child("o", public, "last", input={"note": "hush"}), code("last", "return 2"), open=False
    )
    run = await platform.globex.discover(hidden)
    assert [one["id"] for one in await platform.globex.ok("GET", "/runs")] == [run["id"]]
    shown = await platform.acme.publish(child("o", public), open=False)
    run = await platform.globex.discover(shown)
    assert (run["result"]["result"], run["result"]["output"]) == (1, {})
    assert run["output"]["o"]["output"]["output"] == {}
    below = f"/workflows/discover/{public}/runs/{run['result']['run_id']}"
    assert (await platform.globex.ok("GET", below))["parent_run_id"] == run["id"]


async def test_a_child_s_result_is_no_raw_answer(platform: Platform) -> None:
    inner = await platform.acme.make(model("m", [{"text": "x"}]))
    run = await platform.acme.run(await platform.acme.make(child("o", inner)))
    assert run["result"]["result"]["message"] == "x"
    assert "raw" not in run["result"]["result"]


async def test_a_child_stops_where_its_workflow_was_deleted_while_it_was_stored(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.make(child("o", inner))

    async def deleted_meanwhile(*given: Any) -> Any:
        await platform.acme.ok("DELETE", f"/workflows/{inner}")
        return await create(*given)

    create = child_start.create
    monkeypatch.setattr(child_start, "create", deleted_meanwhile)
    run = await platform.acme.run(outer)
    assert (run["status"], run["error"]) == ("FAILED", "The child run was cancelled")
    assert not await platform.rows("SELECT id FROM runs WHERE ended_at IS NULL")


async def test_what_ran_below_a_deleted_workflow_is_erased_with_it(platform: Platform) -> None:
    acme = platform.acme
    text = {"text": "{{input.text}}"}
    leaf = await acme.make(code("z", "return input.text"), retention=-1)
    aside = await acme.make(code("z", "return input.text"))
    middle = await acme.make(child("o", leaf, input=text))
    outer = await acme.make(child("o", middle, "p", input=text), child("p", aside, input=text))
    await acme.run(outer, input={"text": "mine"})
    await acme.ok("DELETE", f"/workflows/{middle}")
    await erase_due(platform.services)
    rows = await platform.rows("SELECT workflow_id FROM runs WHERE erased_at IS NULL")
    assert {row.workflow_id for row in rows} == {outer, aside}


async def test_the_limits_of_a_run_hold_for_its_whole_tree(platform: Platform) -> None:
    leaf = await platform.acme.make(code("z", "return 1"))
    inner = await platform.acme.make(child("l", leaf))
    outer = await platform.acme.make(code("a", "return 1", "o"), child("o", inner))
    assert (await platform.acme.run(outer, limits={"cpu": 1}))["status"] == "COMPLETED"
    assert [limits.cpu for limits in platform.sandbox.limits] == [1, 1]


async def test_a_child_that_was_stored_is_followed_whatever_fails_then(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would stop it: the run's cancel would be answered while it goes on."""
    inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.make(child("o", inner))
    admits = AsyncMock(side_effect=[True, OSError("a defect")])
    monkeypatch.setattr(platform.services.resolver, "admits", admits)
    run = await platform.acme.run(outer)
    assert run["status"] == "FAILED"
    rows = await platform.rows("SELECT depth, status FROM runs ORDER BY depth")
    assert [tuple(row) for row in rows] == [(0, "FAILED"), (1, "CANCELLED")]
