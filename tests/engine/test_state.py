"""The fold: what events add up to."""

import math
from typing import Any

import msgspec
import pytest
from tests.engine.stage import folded

from insula.engine.credits import MOST
from insula.engine.events import (
    Chunk,
    Event,
    Interruption,
    RunEnded,
    RunLeft,
    RunStarted,
    StepEnded,
    StepReset,
    StepSkipped,
    StepStarted,
    UnitEnded,
    UnitStarted,
    decode_events,
    encode_events,
)
from insula.engine.state import RunState, fold, joined_logs
from insula.kit import json
from insula.kit.json import Raw

BEGUN = [RunStarted(1), StepStarted(2, "A", "code", attempt=1)]


def raw(value: object) -> Raw:
    return json.raw(value)


def test_a_run_from_start_to_end() -> None:
    state = fold([*BEGUN, StepEnded(3, "A", "COMPLETED", raw(1)), RunEnded(4, "COMPLETED", "A")])
    step = state.steps["A"]
    assert (state.status, state.started_at, state.ended_at) == ("COMPLETED", 1, 4)
    assert (step.status, step.start, step.end, step.output) == ("COMPLETED", 2, 3, raw(1))
    assert state.result == raw(1)
    assert not step.units


def test_what_comes_back_from_storage_folds_to_the_same() -> None:
    events: list[Event] = [
        *BEGUN,
        StepEnded(3, "A", "FAILED", raw(None), "broke", "script", raw([{"level": "log"}]), 0.5),
        StepSkipped(3, "B", "code", conditional=True, logs=raw([1])),
        StepStarted(3, "M", "model"),
        UnitStarted(4, "M", 1, round=0),
        Chunk(5, "M", "mock", "m", "Hi é"),
        StepReset(6, "M"),
        UnitEnded(7, "M", round=0, error="no", again=True, credits=0.25),
        UnitStarted(8, "M", 2, round=0, call="c", tool="T", tool_type="workflow", child="run_1"),
        RunEnded(9, "FAILED", None, "broke", "script", (Interruption("M", "x", 1, True, ("r",)),)),
    ]
    assert decode_events(encode_events(events)) == events
    assert folded(events) == fold(events)
    assert fold(events).interruptions[0].path == ("r",)


def test_what_anything_costs_is_finite() -> None:
    for price, bounded in ((math.inf, MOST), (1e308, MOST), (math.nan, 0), (-1.0, 0), (2.5, 2.5)):
        ended = StepEnded(3, "A", "COMPLETED", raw(1), credits=price)
        assert ended.credits == bounded
        assert decode_events(encode_events([ended])) == [ended]
        assert UnitEnded(3, "A", credits=price).credits == bounded


def test_sums_of_prices_are_bounded_too() -> None:
    state = folded(
        [
            *(StepStarted(2, key, "model") for key in "AB"),
            UnitStarted(3, "A", 1, round=0, call="c", tool="T", tool_type="model"),
            *(UnitEnded(4, "A", round=0, call="c", credits=MOST, again=True) for _ in range(2)),
            StepEnded(5, "A", "COMPLETED", raw(1), credits=MOST),
            StepEnded(6, "B", "COMPLETED", raw(1), credits=MOST),
        ]
    )
    step = state.steps["A"]
    assert (step.calls[None, 0, "c"].credits, step.credits, state.credits) == (MOST, MOST, MOST)


def test_a_price_that_was_stored_as_null_is_nothing() -> None:
    """Infinity was written so: it made the whole journal unreadable."""
    events: list[Event] = [
        *BEGUN,
        UnitEnded(3, "A", error="no", again=True, credits=7.0),
        StepEnded(4, "A", "COMPLETED", raw({"credits": None, "n": 1.5}), credits=3.0),
    ]
    stored = encode_events(events).replace(b'"credits":7.0', b'"credits":null')
    read = decode_events(stored.replace(b'"credits":3.0', b'"credits":null'))
    state = fold(read)
    assert state.credits == 0
    assert state.steps["A"].output == raw({"credits": None, "n": 1.5})
    with pytest.raises(msgspec.ValidationError):
        decode_events(b'[{"e":"end","credits":"x"}]')


def test_an_output_of_null_is_an_output() -> None:
    state = folded([*BEGUN, StepEnded(3, "A", "COMPLETED", raw(None))])
    assert state.steps["A"].output == Raw(b"null")


def test_an_interruption_is_seen_from_a_second_start() -> None:
    state = fold([*BEGUN, RunLeft(4), UnitStarted(5, "A", 2), UnitStarted(6, "A", 3)])
    assert state.steps["A"].units[None, None, None].interrupted == 1
    state = fold([*BEGUN, UnitStarted(5, "A", 2), UnitStarted(6, "A", 3)])
    unit = state.steps["A"].units[(None, None, None)]
    assert (unit.attempts, unit.interrupted, unit.failed, unit.open) == (3, 2, 0, True)
    assert state.steps["A"].attempts == 3


def test_a_failed_attempt_is_no_interruption() -> None:
    state = fold([*BEGUN, UnitEnded(3, "A", error="no", again=True), UnitStarted(4, "A", 2)])
    unit = state.steps["A"].units[(None, None, None)]
    assert (unit.interrupted, unit.failed, unit.open, unit.ended) == (0, 1, True, False)


def test_iterations_become_the_list() -> None:
    state = fold(
        [
            RunStarted(1),
            StepStarted(2, "A", "code", looped=True),
            UnitStarted(3, "A", 1, index=0),
            UnitEnded(4, "A", index=0, output=raw("x"), logs=raw([1]), credits=1),
            UnitStarted(5, "A", 1, index=1),
        ]
    )
    step = state.steps["A"]
    assert step.produced() == Raw(b'["x"]')
    assert list(step.units) == [(1, None, None)]
    state.apply(UnitEnded(6, "A", index=1, output=raw(2), logs=raw([2]), credits=1))
    state.apply(StepEnded(7, "A", "COMPLETED"))
    assert (step.output, step.credits, step.all_logs()) == (
        Raw(b'["x",2]'),
        2,
        Raw(b"[1,2]"),
    )


def test_an_empty_loop_is_an_empty_list() -> None:
    state = fold([StepStarted(2, "A", "code", looped=True), StepEnded(3, "A", "COMPLETED")])
    assert state.steps["A"].output == Raw(b"[]")


def test_a_calls_retry_is_the_same_entry() -> None:
    at: dict[str, Any] = {"round": 0, "call": "c"}
    state = fold(
        [
            StepStarted(1, "M", "model"),
            UnitStarted(2, "M", 1, tool="T", tool_type="code", **at),
            UnitEnded(3, "M", error="no", credits=1, again=True, logs=raw([1]), **at),
        ]
    )
    unit, call = state.steps["M"].units[(None, 0, "c")], state.steps["M"].calls[(None, 0, "c")]
    assert not unit.ended
    assert call.status == "FAILED"
    state.apply(UnitStarted(4, "M", 2, tool="T", tool_type="code", **at))
    assert (call.status, call.start, call.end, call.error) == ("RUNNING", 2, None, None)
    state.apply(UnitEnded(5, "M", output=raw(7), credits=2, logs=raw([2]), **at))
    assert unit.ended
    assert (call.status, call.output, call.credits, call.logs) == (
        "COMPLETED",
        Raw(b"7"),
        3,
        Raw(b"[1,2]"),
    )
    assert state.steps["M"].credits == 3


def test_a_call_that_failed_for_good_is_a_result() -> None:
    at: dict[str, Any] = {"round": 0, "call": "c"}
    state = fold(
        [
            StepStarted(1, "M", "model"),
            UnitStarted(2, "M", 1, tool="T", **at),
            UnitEnded(3, "M", error="no", **at),
        ]
    )
    assert state.steps["M"].units[(None, 0, "c")].ended


def test_a_call_that_is_open_when_its_step_ends_is_cancelled() -> None:
    state = fold(
        [
            StepStarted(1, "M", "model"),
            UnitStarted(2, "M", 1, round=0, call="c", tool="T"),
            StepEnded(3, "M", "CANCELLED"),
        ]
    )
    call = state.steps["M"].calls[(None, 0, "c")]
    assert (call.status, call.end) == ("CANCELLED", 3)


def _half_an_answer() -> RunState:
    return fold(
        [
            StepStarted(1, "M", "model"),
            Chunk(2, "M", "mock", "m", "Half "),
            Chunk(2, "M", "mock", "m", "an"),
        ]
    )


def test_a_cancelled_step_keeps_what_it_had_produced() -> None:
    state = _half_an_answer()
    state.apply(StepEnded(3, "M", "CANCELLED"))
    assert json.decode(state.steps["M"].output or b"") == {
        "provider": "mock",
        "model": "m",
        "message": "Half an",
    }


def test_a_failed_step_passes_no_half_answer_on() -> None:
    state = _half_an_answer()
    state.apply(StepEnded(3, "M", "FAILED", error="no"))
    assert state.steps["M"].output is None


def test_a_reset_empties_what_was_streamed() -> None:
    state = _half_an_answer()
    state.apply(StepReset(3, "M"))
    assert state.steps["M"].produced() is None


@pytest.mark.parametrize(
    ("kind", "looped", "output", "result"),
    [
        ("code", False, {"result": 5, "more": 1}, 5),
        ("code", False, {"result": None}, None),
        ("code", False, {"other": 1}, {"other": 1}),
        ("code", False, "text", "text"),
        ("code", True, [{"result": 1}], [{"result": 1}]),
        ("http_request", False, {"result": 5}, {"result": 5}),
    ],
)
def test_the_result(kind: str, looped: bool, output: object, result: object) -> None:
    state = fold(
        [
            StepStarted(1, "A", kind, looped=looped),
            StepEnded(2, "A", "COMPLETED", raw(output)),
            RunEnded(3, "COMPLETED", "A"),
        ]
    )
    assert state.result is not None
    assert json.decode(state.result) == result


def test_size_counts_outputs_and_logs_once() -> None:
    events: list[Event] = [
        StepStarted(1, "A", "code", looped=True),
        UnitStarted(1, "A", 1, index=0),
        UnitEnded(1, "A", index=0, output=raw("xx"), logs=raw([1])),
        StepEnded(1, "A", "COMPLETED"),
        StepStarted(1, "M", "model"),
        UnitEnded(1, "M", round=0, output=raw("a round is not in the output")),
        UnitStarted(1, "M", 1, round=0, call="c", tool="T"),
        UnitEnded(1, "M", round=0, call="c", output=raw(12), logs=raw([])),
        StepEnded(1, "M", "COMPLETED", raw("done")),
    ]
    assert fold(events).size == len('"xx"' + "[1]" + "12" + "[]" + '"done"')


@pytest.mark.parametrize(
    ("parts", "joined"),
    [([], None), ([[1]], [1]), ([[1], [], [2, 3]], [1, 2, 3]), ([[], []], [])],
)
def test_joining_logs(parts: list[list[int]], joined: list[int] | None) -> None:
    told = joined_logs([raw(part) for part in parts])
    assert (None if told is None else json.decode(told)) == joined
