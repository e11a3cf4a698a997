"""What is shown of a step, whatever was once stored as its output, and of a run's error."""

from typing import Any

import pytest

from insula.engine.state import RunState, StepState
from insula.kit import json
from insula.kit.json import Raw
from insula.runs.render import HIDDEN_ERROR, Sight, shown_error, shown_step

OPEN = Sight(None, None)
CLOSED = Sight(None, None, frozenset(("s",)))


def shown(kind: str, output: object, sight: Sight) -> Any:
    step = StepState("s", kind, "COMPLETED", 1, 2, output=json.raw(output))
    return json.decode(json.encode(shown_step(step, sight)["output"]))


@pytest.mark.parametrize("sight", [OPEN, CLOSED])
def test_a_model_output_that_is_no_answer_is_shown_as_it_is(sight: Sight) -> None:
    assert shown("model", [1, {"raw": 2, "message": 3}], sight) == [1, {"message": 3}]
    assert shown("model", '"raw":', sight) == '"raw":'


@pytest.mark.parametrize(("sight", "told"), [(OPEN, True), (CLOSED, False)])
def test_an_output_that_nests_too_deeply_to_be_looked_into(sight: Sight, told: bool) -> None:
    deep = Raw(b'{"raw":1,"message":' + b"[" * 5000 + b"]" * 5000 + b"}")
    step = StepState("s", "model", "COMPLETED", 1, 2, output=deep)
    assert json.encode(shown_step(step, sight)["output"]) == (bytes(deep) if told else b"null")


def test_a_workflow_output_that_is_no_run_is_shown_as_it_is() -> None:
    assert shown("workflow", [7, None], CLOSED) == [7, None]
    hidden = {"output": {}, "usage": {"total": 0, "steps": {}}}
    assert shown("workflow", {"usage": 5, "output": 1}, CLOSED) == hidden


@pytest.mark.parametrize(
    ("failed", "code", "told"),
    [
        (["s"], "script", True),
        (["s"], "timeout", True),
        (["hidden"], "timeout", False),
        (["s", "hidden"], "script", False),
        ([], "timeout", True),
        ([], "storage", True),
        ([], "internal", True),
        ([], "not_available", True),
        ([], "script", False),
        ([], None, False),  # its steps are gone: nothing says whose error it is
    ],
)
def test_a_closed_workflow_s_error_is_told_only_if_nothing_hidden_is_behind_it(
    failed: list[str], code: str | None, told: bool
) -> None:
    state = RunState("FAILED", code=code)
    for key in failed:
        state.steps[key] = StepState(key, "code", "FAILED", 1, 2)
    assert shown_error("hush", state, CLOSED) == ("hush" if told else HIDDEN_ERROR)
    assert shown_error("hush", state, OPEN) == "hush"
