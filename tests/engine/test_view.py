"""Steps in the shape of the contract."""

from insula.engine.events import (
    Chunk,
    StepEnded,
    StepSkipped,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.engine.state import fold
from insula.engine.view import call_view, step_view, usage_view
from insula.kit import json
from insula.kit.json import Raw


def test_a_completed_step() -> None:
    state = fold(
        [
            StepStarted(1, "A", "code", attempt=1),
            StepEnded(3, "A", "COMPLETED", json.raw({"a": 1}), logs=json.raw([1])),
        ]
    )
    assert step_view(state.steps["A"]) == {
        "status": "COMPLETED",
        "type": "code",
        "key": "A",
        "start": 1,
        "end": 3,
        "output": Raw(b'{"a":1}'),
        "logs": Raw(b"[1]"),
    }


def test_a_running_and_a_skipped_step() -> None:
    state = fold([StepStarted(1, "A", "code", attempt=1), StepSkipped(2, "B", "code")])
    assert step_view(state.steps["A"]) == {
        "status": "RUNNING",
        "type": "code",
        "key": "A",
        "start": 1,
    }
    skipped = step_view(state.steps["B"])
    assert (skipped["status"], skipped["start"], skipped["end"]) == ("SKIPPED", 2, 2)
    assert "error" not in skipped


def test_a_failed_step_says_why_and_how_often_it_was_tried() -> None:
    state = fold(
        [
            StepStarted(1, "A", "code", attempt=1),
            UnitStarted(2, "A", 2),
            StepEnded(3, "A", "FAILED", error="no"),
        ]
    )
    view = step_view(state.steps["A"])
    assert (view["error"], view["attempts"]) == ("no", 2)
    assert "output" not in view


def test_half_an_answer_in_the_view_of_a_running_model() -> None:
    state = fold([StepStarted(1, "M", "model"), Chunk(2, "M", "mock", "m", "Half", index=None)])
    assert json.decode(step_view(state.steps["M"])["output"])["message"] == "Half"


def test_calls_and_what_they_cost() -> None:
    state = fold(
        [
            StepStarted(1, "M", "model"),
            UnitEnded(2, "M", round=0, credits=0.1),
            UnitStarted(3, "M", 1, tool="T", tool_type="code", round=0, call="c1"),
            UnitEnded(4, "M", output=json.raw(1), credits=0.2, round=0, call="c1"),
            UnitStarted(5, "M", 1, tool="T", tool_type="code", round=0, call="c2"),
            StepStarted(6, "FREE", "code", attempt=1),
        ]
    )
    first, second = state.steps["M"].calls.values()
    assert call_view(first) == {
        "id": "c1",
        "status": "COMPLETED",
        "key": "T",
        "type": "code",
        "start": 3,
        "output": Raw(b"1"),
        "end": 4,
    }
    assert call_view(second)["status"] == "RUNNING"
    assert [call["id"] for call in step_view(state.steps["M"])["calls"]] == ["c1", "c2"]
    calls = [{"id": "c1", "total": 0.2}, {"id": "c2", "total": 0}]
    assert usage_view(state) == {"total": 0.3, "steps": {"M": {"total": 0.3, "calls": calls}}}
