"""*branch*: asks every condition."""

from tests.engine.stage import branch, play

from insula.engine.failures import StepFailure


async def test_conditions_are_asked_in_ascending_order_in_one_evaluation() -> None:
    step = branch("X", {"late": [], "soon": []})
    step["conditions"]["late"]["order"] = 9
    run = await play(step, table={"late": 0, "soon": 1})
    (evaluation,) = run.ports.sandbox.evaluations  # type: ignore[attr-defined]  # the fake's
    assert evaluation.scripts == ("soon", "late")
    assert evaluation.condition
    assert not evaluation.waits
    assert run.outputs == {"X": {"soon": True, "late": False}}
    assert list(run.outputs["X"]) == ["soon", "late"]


async def test_a_condition_without_script_does_not_hold() -> None:
    step = branch("X", {"a": [], "b": []})
    step["conditions"]["a"]["condition"] = None
    step["conditions"]["b"]["condition"] = "  "
    run = await play(step)
    assert run.outputs == {"X": {"a": False, "b": False}}
    assert run.scripts == []


async def test_one_that_fails_fails_the_step() -> None:
    run = await play(branch("X", {"a": []}), table={"a": StepFailure("no", "script")})
    assert (run.statuses, run.ended.code) == ({"X": "FAILED"}, "script")
