"""Runs that are stopped: cancel, deadline, shutdown, and runs that are lost to another process."""

import asyncio
from typing import Any

import pytest
from tests.engine.stage import Gates, Stage, code, folded, play, settled, step

from insula.engine.events import Event, RunLeft, RunStarted, StepEnded, StepStarted
from insula.engine.failures import StepFailure
from insula.engine.ports import Evaluated, Evaluation, Fenced
from insula.engine.state import fold
from insula.kit.json import Raw
from insula.testing import ListRecorder

BROKE = StepFailure("it broke", "script")


def _at_once(stage: Stage, event: Event) -> None:
    if isinstance(event, RunStarted):
        stage.cancel()


class TestCancel:
    async def test_what_has_begun_is_cancelled_and_what_has_not_has_no_entry(self) -> None:
        gates = Gates()
        steps = [code("A", "B", "C"), code("B", "D"), code("C"), code("D")]
        stage = Stage(*steps, pause=gates).begin()
        await settled()
        gates.let()
        await settled()
        stage.cancel()
        run = await stage.end()
        assert run.ended.status == "CANCELLED"
        assert run.statuses == {"A": "COMPLETED", "B": "CANCELLED", "C": "CANCELLED"}
        assert all(s.end is not None for s in run.state.steps.values())
        assert {told.key for told in run.ended.interruptions} == {"B", "C"}
        assert "evaluating" in run.ended.interruptions[0].doing
        assert run.ended.error is None
        assert run.ports.activities == {}
        assert folded(run.events) == run.state

    async def test_before_the_first_step_nothing_has_an_entry(self) -> None:
        recorder = ListRecorder(after=lambda event: _at_once(stage, event))
        stage = Stage(code("A"), recorder=recorder).begin()
        run = await stage.end()
        assert (run.ended.status, run.statuses) == ("CANCELLED", {})

    async def test_while_a_conditional_is_asked_the_step_has_not_begun(self) -> None:
        gates = Gates()
        stage = Stage(code("A", conditional="ask"), pause=gates).begin()
        await settled()
        stage.cancel()
        run = await stage.end()
        assert run.statuses == {}
        (told,) = run.ended.interruptions
        assert (told.key, told.doing) == ("A", "code step, conditional: evaluating")

    async def test_a_resumed_step_that_did_not_get_to_run_is_cancelled(self) -> None:
        state = fold([StepStarted(1, "A", "code", attempt=1)])
        recorder = ListRecorder(after=lambda event: _at_once(stage, event))
        stage = Stage(code("A"), state=state, recorder=recorder).begin()
        run = await stage.end()
        assert run.statuses == {"A": "CANCELLED"}
        assert len(run.ended.interruptions) == 1

    @pytest.mark.parametrize("answer", [1, StepFailure("killed", "engine_crash")])
    async def test_a_port_that_swallows_it_changes_nothing(self, answer: Any) -> None:
        gate = asyncio.get_running_loop().create_future()

        class Deaf:
            evaluations = 0

            async def evaluate(self, evaluation: Evaluation, activity: Any) -> Evaluated:
                self.evaluations += 1
                try:
                    await gate
                except asyncio.CancelledError:
                    if isinstance(answer, Exception):
                        raise answer from None
                return Evaluated((Raw(b"1"),))

        sandbox = Deaf()
        steps = [code("A", "B", loop="more", throw_on_error=False), code("B")]
        stage = Stage(*steps, sandbox=sandbox).begin()
        await settled()
        stage.cancel()
        run = await stage.end()
        assert run.ended.status == "CANCELLED"
        assert run.statuses == {"A": "CANCELLED"}
        assert sandbox.evaluations == 1

    async def test_of_a_run_that_is_failing_the_failure_stands(self) -> None:
        gates, cleaning = Gates(), asyncio.get_running_loop().create_future()

        async def slow_to_stop() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                await cleaning

        table = {"code_A()": BROKE, "code_B()": lambda scope: slow_to_stop()}
        stage = Stage(code("A"), code("B"), pause=gates, table=table).begin()
        await settled()
        gates.let(1)
        await settled()
        gates.let()
        await settled()
        stage.cancel()
        await settled()
        cleaning.set_result(None)
        run = await stage.end()
        assert (run.ended.status, run.ended.error) == ("FAILED", "it broke")
        assert stage.task is not None
        assert stage.task.cancelling() == 1

    async def test_an_interrupted_stop_is_gone_on_with(self) -> None:
        events: list[Event] = [
            StepStarted(1, "A", "code", attempt=1),
            StepStarted(1, "B", "code", attempt=1),
            StepEnded(2, "A", "CANCELLED"),
        ]
        run = await play(code("A", "C"), code("B"), code("C"), state=fold(events))
        assert run.ended.status == "CANCELLED"
        assert run.statuses == {"A": "CANCELLED", "B": "CANCELLED"}
        assert run.scripts == []


class TestDeadline:
    async def test_it_fails_the_run(self) -> None:
        gates = Gates()
        stage = Stage(code("A"), pause=gates).begin()
        await settled()
        stage.cancel("deadline")
        run = await stage.end()
        assert (run.ended.status, run.ended.code) == ("FAILED", "timeout")
        assert "timeout" in (run.ended.error or "")
        assert run.statuses == {"A": "CANCELLED"}

    async def test_it_still_does_after_a_crash(self) -> None:
        gates = Gates()
        stage = Stage(code("A", "C"), code("B"), code("C"), pause=gates).begin()
        await settled()
        stage.cancel("deadline")
        events = (await stage.end()).events
        for length in range(3, len(events)):  # up to all but the run's end
            cancelled = any(isinstance(e, StepEnded) for e in events[:length])
            if cancelled:
                run = await play(
                    code("A", "C"), code("B"), code("C"), state=folded(events[:length])
                )
                assert (run.ended.status, run.ended.code) == ("FAILED", "timeout")


class TestShutdown:
    async def test_it_records_only_that_the_run_is_left(self) -> None:
        gates = Gates()
        stage = Stage(code("A"), code("B", conditional="ask"), pause=gates).begin()
        await settled()
        before = list(stage.recorder.events)
        stage.cancel("shutdown")
        with pytest.raises(asyncio.CancelledError):
            await stage.end()
        assert stage.recorder.events[:-1] == before
        assert isinstance(stage.recorder.events[-1], RunLeft)
        assert stage.state.steps["A"].end is None

    async def test_what_ends_with_a_process_that_breaks_counts_as_interrupted(self) -> None:
        stage = Stage(code("A"), pause=Gates()).begin()
        await settled()
        assert stage.task is not None
        stage.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stage.end()
        assert not any(isinstance(event, RunLeft) for event in stage.recorder.events)

    async def test_nor_of_a_step_that_fails_because_of_it(self) -> None:
        gate = asyncio.get_running_loop().create_future()

        async def turned_into_a_failure() -> None:
            try:
                await gate
            except asyncio.CancelledError:
                raise StepFailure("the worker was killed", "engine_crash") from None

        table = {"code_A()": lambda scope: turned_into_a_failure()}
        stage = Stage(code("A"), table=table).begin()
        await settled()
        stage.cancel("shutdown")
        with pytest.raises(asyncio.CancelledError):
            await stage.end()
        assert stage.state.steps["A"].end is None

    async def test_a_cancel_that_nobody_asked_for_ends_nothing(self) -> None:
        gates = Gates()
        stage = Stage(code("A"), pause=gates).begin()
        await settled()
        stage.cancel(None)
        with pytest.raises(asyncio.CancelledError):
            await stage.end()
        assert stage.state.steps["A"].end is None
        assert stage.stop.kind == "shutdown"


class TestFenced:
    async def test_a_run_that_was_lost_writes_nothing_more(self) -> None:
        class Lost(ListRecorder):
            async def stored(self) -> None:
                raise Fenced

        gates = Gates()
        recorder = Lost()
        steps = [code("A"), step("http_request", "H", conditional="ask", url="http://x/")]
        stage = Stage(*steps, pause=gates, recorder=recorder).begin()
        await settled()
        gates.let(1)
        with pytest.raises(Fenced):
            await stage.end()
        kinds = [(type(e).__name__, getattr(e, "key", "")) for e in recorder.events]
        assert kinds == [("RunStarted", ""), ("StepStarted", "A"), ("StepStarted", "H")]
