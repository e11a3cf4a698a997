"""Runs from start to end: order, failure, cancel, deadline, shutdown, resumption, results."""

import asyncio
from typing import Any

import pytest
from tests.effort import costing_at_most
from tests.engine.stage import Gates, Stage, branch, code, folded, model, play, settled, step

from insula.engine.events import Event, StepEnded, StepStarted
from insula.engine.failures import StepFailure
from insula.engine.ports import ChildOutcome, Evaluated, Evaluation, ModelToolCall
from insula.engine.state import fold
from insula.kit.json import Raw, raw
from insula.testing import (
    UNDEFINED,
    ListRecorder,
    ScriptedChildren,
    ScriptedModels,
    ScriptedSandbox,
)

BROKE = StepFailure("it broke", "script")


async def test_steps_run_in_order_and_the_last_code_decides() -> None:
    run = await play(code("A", "B"), code("B", "C"), code("C"), table={"code_C()": {"result": 7}})
    assert run.ended.status == "COMPLETED"
    assert run.scripts == ["code_A()", "code_B()", "code_C()"]
    assert run.result == 7
    assert [type(event).__name__ for event in run.events] == [
        "RunStarted",
        *["StepStarted", "StepEnded"] * 3,
        "RunEnded",
    ]


async def test_independent_steps_run_at_the_same_time() -> None:
    gates = Gates()
    stage = Stage(code("A", "J"), code("B", "J"), code("J"), pause=gates).begin()
    await settled()
    assert len(gates.waiting) == 2
    gates.let(1)
    gates.let()
    await settled()
    gates.let()
    assert (await stage.end()).statuses == dict.fromkeys("ABJ", "COMPLETED")


async def test_a_workflow_of_nothing_completes_with_nothing() -> None:
    run = await play(step("note", "N", note="hm"))
    assert (run.ended.status, run.result, run.statuses) == ("COMPLETED", None, {})


async def test_what_nothing_leads_to_has_no_entry() -> None:
    run = await play(step("input", "IN", "A", input={}), code("A"), code("LOST"))
    assert set(run.statuses) == {"IN", "A"}


async def test_the_run_may_start_in_the_middle() -> None:
    run = await play(code("A", "B"), code("B", "C"), code("C"), start="B")
    assert run.scripts == ["code_B()", "code_C()"]


class TestConditional:
    async def test_a_step_that_its_conditional_skips_does_not_stop_the_next(self) -> None:
        run = await play(code("A", "B", conditional="no"), code("B"), table={"no": 0})
        assert run.statuses == {"A": "SKIPPED", "B": "COMPLETED"}
        assert run.state.steps["A"].start == run.state.steps["A"].end

    @pytest.mark.parametrize("value", [None, False, 0, "", UNDEFINED])
    async def test_what_is_false(self, value: object) -> None:
        run = await play(code("A", conditional="ask"), table={"ask": value})
        assert run.ended.status == "SKIPPED"
        assert run.result is None

    @pytest.mark.parametrize("value", [True, 1, "0", [], {}])
    async def test_what_is_true(self, value: object) -> None:
        run = await play(code("A", conditional="ask"), table={"ask": value})
        assert run.statuses == {"A": "COMPLETED"}

    async def test_one_that_fails_fails_the_step(self) -> None:
        run = await play(code("A", conditional="ask"), table={"ask": BROKE})
        assert (run.ended.status, run.ended.error, run.ended.code) == (
            "FAILED",
            "it broke",
            "script",
        )
        assert run.statuses == {"A": "FAILED"}

    async def test_it_is_asked_with_reserved_places_and_without_waiting(self) -> None:
        run = await play(code("A", conditional="ask"))
        asked, ran = run.ports.sandbox.evaluations  # type: ignore[attr-defined]  # the fake's
        assert (asked.condition, asked.waits, ran.condition, ran.waits) == (
            True,
            False,
            False,
            True,
        )

    async def test_a_blank_one_is_none(self) -> None:
        assert (await play(code("A", conditional="  "))).scripts == ["code_A()"]

    async def test_what_it_logs_is_among_the_logs(self) -> None:
        class Logging(ScriptedSandbox):
            async def evaluate(self, evaluation: Evaluation, activity: Any) -> Evaluated:
                done = await super().evaluate(evaluation, activity)
                return Evaluated(done.outputs, Raw(b'["%s"]' % evaluation.scripts[0].encode()))

        steps = [code("A", conditional="yes"), code("B", conditional="no")]
        run = await play(*steps, sandbox=Logging(lambda script, _: script != "no"))
        assert run.state.steps["A"].all_logs() == Raw(b'["yes","code_A()"]')
        assert run.state.steps["B"].all_logs() == Raw(b'["no"]')


class TestBranch:
    async def test_conditions_open_their_ways(self) -> None:
        steps = [
            branch("X", {"a": ["A"], "b": ["B"], "c": ["C"]}, "O", otherwise=("E",)),
            *(code(k) for k in "ABCOE"),
        ]
        run = await play(*steps, table={"a": True, "b": 0, "c": "yes"})
        assert run.outputs["X"] == {"a": True, "b": False, "c": True}
        assert run.statuses == {
            "X": "COMPLETED",
            "A": "COMPLETED",
            "B": "SKIPPED",
            "C": "COMPLETED",
            "O": "COMPLETED",
            "E": "SKIPPED",
        }

    async def test_one_that_fails_and_goes_on_opens_the_ordinary_way_only(self) -> None:
        steps = [
            {**branch("X", {"a": ["A"]}, "O", otherwise=("E",)), "throw_on_error": False},
            *(code(k) for k in "AOE"),
        ]
        run = await play(*steps, table={"a": BROKE})
        assert run.statuses == {"X": "FAILED", "A": "SKIPPED", "O": "COMPLETED", "E": "SKIPPED"}
        assert run.ended.status == "COMPLETED"

    async def test_ways_that_join_again_run_once(self) -> None:
        steps = [branch("X", {"a": ["A"], "b": ["B"]}), code("A", "J"), code("B", "J"), code("J")]
        run = await play(*steps, table={"a": True, "b": False})
        assert run.statuses["J"] == "COMPLETED"
        assert run.scripts.count("code_J()") == 1


class TestFailure:
    async def test_it_stops_what_runs_and_ends_the_run(self) -> None:
        gates = Gates()
        steps = [code("A", "B"), code("B"), code("SLOW", "NEVER"), code("NEVER")]
        stage = Stage(*steps, pause=gates, table={"code_A()": BROKE}).begin()
        await settled()
        gates.let()
        run = await stage.end()
        assert (run.ended.status, run.ended.error, run.ended.code, run.result) == (
            "FAILED",
            "it broke",
            "script",
            None,
        )
        assert run.statuses == {"A": "FAILED", "SLOW": "CANCELLED"}
        assert [told.key for told in run.ended.interruptions] == ["SLOW"]
        assert stage.task is not None
        assert stage.task.cancelling() == 0

    async def test_the_first_that_was_journaled_counts(self) -> None:
        gates = Gates()
        table = {"code_A()": StepFailure("A broke"), "code_B()": StepFailure("B broke")}
        stage = Stage(code("A"), code("B"), pause=gates, table=table).begin()
        await settled()
        gates.let(1)
        gates.let()  # both at once: B was let go first
        run = await stage.end()
        assert run.ended.error == "B broke"
        assert run.statuses == {"A": "CANCELLED", "B": "FAILED"}

    async def test_one_that_is_not_thrown_goes_on(self) -> None:
        seen: dict[str, Any] = {}
        steps = [code("A", "B", throw_on_error=False), {**code("B"), "code": "look(A)"}]
        table = {"code_A()": BROKE, "look(A)": seen.update}
        run = await play(*steps, table=table)
        assert run.ended.status == "COMPLETED"
        assert run.statuses == {"A": "FAILED", "B": "COMPLETED"}
        assert seen["A"] == {"status": "FAILED", "error": "it broke", "output": None}

    async def test_a_defect_of_ours_is_a_failed_step(self, caplog: Any) -> None:
        run = await play(code("A"), code("B"), table={"code_A()": KeyError("ours")})
        assert (run.ended.status, run.ended.code) == ("FAILED", "internal")
        assert "ours" not in (run.ended.error or "")
        assert "broke" in caplog.text

    async def test_a_cancel_that_nobody_asked_for_is_a_failed_step(self) -> None:
        run = await play(code("A"), table={"code_A()": _raise_cancelled})
        assert (run.ended.status, run.ended.code) == ("FAILED", "internal")

    async def test_a_defect_outside_of_a_step_ends_the_run_too(self, caplog: Any) -> None:
        def no_more(event: Event) -> None:
            if isinstance(event, StepEnded) and event.status != "CANCELLED":
                raise RuntimeError("the recorder is broken")

        recorder = ListRecorder(after=no_more)
        run = await play(code("A"), recorder=recorder)
        assert run.ended.status == "FAILED"
        assert run.ended.code == "internal"
        assert run.statuses == {"A": "CANCELLED"}

    async def test_a_message_that_cannot_be_stored_is_mended(self) -> None:
        run = await play(code("A"), table={"code_A()": StepFailure("\ud800" + "x" * 20_000)})
        assert run.ended.error is not None
        assert run.ended.error.startswith("?x")
        assert len(run.ended.error) == 10_000
        folded(run.events)

    async def test_resumed_after_it_nothing_begins(self) -> None:
        events: list[Event] = [
            StepStarted(1, "A", "code", attempt=1),
            StepStarted(1, "SLOW", "code", attempt=1),
            StepEnded(2, "A", "FAILED", error="it broke", code="script"),
        ]
        run = await play(code("A", "B"), code("B"), code("SLOW"), state=fold(events))
        assert (run.ended.status, run.ended.error) == ("FAILED", "it broke")
        assert run.statuses == {"A": "FAILED", "SLOW": "CANCELLED"}
        assert run.ended.interruptions[0].effect_possible
        assert run.scripts == []


def _raise_cancelled(scope: Any) -> None:
    raise asyncio.CancelledError


class TestReplay:
    async def test_the_start_runs_whatever_led_to_it(self) -> None:
        steps = [branch("X", {"no": ["A"]}), code("A", "B"), code("B")]
        first = await play(*steps, table={"no": False})
        assert first.statuses == {"X": "COMPLETED", "A": "SKIPPED", "B": "SKIPPED"}
        kept = fold([e for e in first.events if getattr(e, "key", "X") == "X"][:-1])
        run = await play(*steps, state=kept, forced=frozenset("A"))
        assert run.statuses == {"X": "COMPLETED", "A": "COMPLETED", "B": "COMPLETED"}
        assert run.scripts == ["code_A()", "code_B()"]


class TestOutputLimit:
    async def test_a_step_over_it_fails(self) -> None:
        steps = [code("A", "B"), code("B")]
        run = await play(*steps, max_output=30, table={"code_A()": "x" * 20, "code_B()": "y" * 20})
        assert run.statuses == {"A": "COMPLETED", "B": "FAILED"}
        assert (run.ended.code, run.state.steps["B"].output) == ("limit_output", None)
        assert "INSULA_RUN_OUTPUT_MAX" in (run.ended.error or "")

    async def test_it_counts_iterations_and_is_the_same_after_a_crash(self) -> None:
        loop = code("A", loop="more(index)", throw_on_error=False)
        table = {"more(index)": lambda scope: scope["index"] < 9, "code_A()": "x" * 8}
        run = await play(loop, max_output=35, table=table)
        assert run.statuses == {"A": "FAILED"}
        assert run.outputs["A"] == ["x" * 8] * 3
        for length in range(len(run.events)):
            again = await play(loop, max_output=35, table=table, state=folded(run.events[:length]))
            assert (again.statuses, again.outputs) == (run.statuses, run.outputs)

    @pytest.mark.parametrize("more", [{}, {"loop": "index"}, {"throw_on_error": False}])
    async def test_what_a_result_over_it_has_cost_is_told(
        self, more: dict[str, Any], model_replies: Any
    ) -> None:
        """Of a round, a call, an iteration and a step; after a crash too."""
        large = "x" * 500
        child = ScriptedChildren(lambda _: ChildOutcome("COMPLETED", raw(large), None, 5.0))
        down = step("workflow", "W", workflow_id="w", input={}, **more)
        for steps, replies, paid in (
            ([model("M", more=more)], [model_replies(large, credits=5.0)], 5),
            ([down], [], 5),
            (
                [model("M", tools=["W"], more={**more, "throw_on_error": False}), down],
                [model_replies("", ModelToolCall("c", "W", {})), model_replies(large, credits=3)],
                9,
            ),
        ):
            run = await play(*steps, max_output=300, children=child, models=ScriptedModels(replies))
            assert next(iter(run.state.steps.values())).code == "limit_output"
            assert folded(run.events).credits == run.state.credits == paid

    async def test_what_cannot_be_stored_has_cost_something_as_well(self) -> None:
        def refuse(event: Event) -> None:
            if isinstance(event, StepEnded) and event.output is not None:
                del recorder.events[-1]
                raise StepFailure("too large", "limit_output")

        recorder = ListRecorder(after=refuse)
        run = await play(code("A"), recorder=recorder, prices={"code": 2.0})
        assert (run.statuses, run.state.credits) == ({"A": "FAILED"}, 2.0)


class TestSize:
    async def test_five_thousand_steps_in_a_chain_and_in_a_fan(self) -> None:
        keys = [f"S{i}" for i in range(5_000)]
        chain = [code(key, *keys[i + 1 : i + 2]) for i, key in enumerate(keys)]
        groups = {f"c{i}": keys[i * 1000 : i * 1000 + 1000] for i in range(5)}
        fan = [branch("HUB", groups), *(code(key, "END") for key in keys), code("END")]
        with costing_at_most(2500):
            for steps in (chain, fan):
                run = await play(*steps)
                assert run.ended.status == "COMPLETED"
                assert set(run.statuses.values()) == {"COMPLETED"}

    async def test_five_thousand_steps_are_skipped_without_recursion(self) -> None:
        keys = [f"S{i}" for i in range(5_000)]
        chain = [code(key, *keys[i + 1 : i + 2]) for i, key in enumerate(keys)]
        run = await play(branch("X", {"no": ["S0"]}), *chain, table={"no": False})
        assert run.statuses["S4999"] == "SKIPPED"
