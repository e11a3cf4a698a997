"""What a step can see."""

from typing import Any

from tests.engine.stage import code, document, step

from insula.engine.graph import plan
from insula.engine.scope import Scope
from insula.engine.state import RunState, StepState
from insula.kit import json
from insula.kit.json import Raw


def _scope(state: RunState, seen_from: str = "C", **more: Any) -> Scope:
    body = document(
        step("input", "IN", "A", input={}),
        code("A", "B"),
        code("B", "C"),
        code("C"),
        code("X", input_connected=True),
    )
    return Scope(plan(body), state, seen_from, Raw(b'{"q":1}'), Raw(b'{"V":2}'), **more)


def _done(key: str, kind: str = "code", **more: Any) -> StepState:
    return StepState(key, kind, **{"status": "COMPLETED", "start": 1, "end": 2, **more})


def _look(scope: Scope, name: str) -> Any:
    found = scope.lookup(name)
    return None if found is None else json.decode(found)


def test_input_and_variables_under_all_their_names() -> None:
    scope = _scope(RunState())
    assert _look(scope, "input") == {"q": 1}
    assert _look(scope, "variables") == _look(scope, "env") == _look(scope, "secrets") == {"V": 2}
    assert _look(scope, "item") is None
    assert _look(scope, "index") is None
    assert _look(scope, "args") is None


def test_a_loop_has_item_and_index_and_a_tool_its_arguments() -> None:
    scope = _scope(RunState(), index=0, item=Raw(b"false"), args=Raw(b'{"a":1}'))
    assert (_look(scope, "index"), _look(scope, "item"), _look(scope, "args")) == (
        0,
        False,
        {"a": 1},
    )


def test_an_ancestor_shows_status_output_error_and_logs() -> None:
    failed = _done("A", status="FAILED", error="no", logs=[Raw(b"[1]"), Raw(b"[2]")])
    scope = _scope(RunState(steps={"A": failed}))
    shown = {"status": "FAILED", "error": "no", "logs": [1, 2], "output": None}
    assert _look(scope, "A") == shown


def test_an_input_steps_values_stand_beside_its_output() -> None:
    values = {"q": 1, "status": "mine", "output": "theirs"}
    scope = _scope(RunState(steps={"IN": _done("IN", "input", output=json.raw(values))}))
    assert _look(scope, "IN") == {"q": 1, "status": "mine", "output": values}


def test_only_ancestors_that_ran_are_seen_however_early_others_end() -> None:
    steps = {
        "A": _done("A", output=json.raw(1)),
        "B": _done("B", status="SKIPPED"),
        "X": _done("X", output=json.raw(2)),
        "C": _done("C", output=json.raw(3)),
    }
    found, absent = _scope(RunState(steps=steps)).names({"A", "B", "C", "X", "Math", "input"})
    assert set(found) == {"A", "input"}
    assert absent == ("B", "C", "X")


def test_a_running_step_is_not_seen() -> None:
    state = RunState(steps={"A": _done("A", status="RUNNING", end=None)})
    assert _look(_scope(state), "A") is None


def test_what_is_seen_is_built_once() -> None:
    state = RunState(steps={"A": _done("A", output=json.raw("x" * 100))})
    assert _scope(state).lookup("A") is _scope(state).lookup("A")
