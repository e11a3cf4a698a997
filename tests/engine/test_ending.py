"""How a run ends: results, receipts, and runs of which nothing executes."""

import asyncio

from tests.engine.stage import Stage, branch, code, play, settled, step

from insula.engine.ending import end, end_at_rest
from insula.engine.events import StepEnded, StepStarted
from insula.engine.failures import StepFailure
from insula.engine.state import RunState, fold
from insula.testing import RecordedHttp, ScriptedSandbox, fake_ports

BROKE = StepFailure("it broke", "script")


class TestReceipt:
    async def test_the_receipt_says_what_for_how_long_and_whether_it_may_have_happened(
        self,
    ) -> None:
        now = 1_000
        gate = asyncio.get_running_loop().create_future()
        steps = [step("http_request", "H", url="https://user:pw@example.com/a?key=1#x")]
        http = RecordedHttp(lambda request: gate)
        stage = Stage(*steps, http=http, clock=lambda: now).begin()
        await settled()
        now = 5_000
        stage.cancel()
        (told,) = (await stage.end()).ended.interruptions
        assert told.doing == "http_request step: GET https://example.com/a"
        assert told.for_ms == 4_000
        assert told.effect_possible

    async def test_at_rest(self) -> None:
        state = fold([StepStarted(1, "A", "code", attempt=1), StepStarted(1, "M", "model")])
        ports = fake_ports(ScriptedSandbox(lambda *_: None))
        ended = end_at_rest(state, ports)
        assert (ended.status, state.status) == ("CANCELLED", "CANCELLED")
        assert {s.status for s in state.steps.values()} == {"CANCELLED"}
        assert [(i.key, i.effect_possible) for i in ended.interruptions] == [
            ("A", True),
            ("M", False),
        ]
        assert end_at_rest(RunState(), ports).interruptions == ()

    async def test_no_database_refuses_the_words_of_a_failure(self) -> None:
        # As a journal gives them that was written before they were looked at.
        failed = StepEnded(2, "A", "FAILED", error="a\0b")
        state = fold([StepStarted(1, "A", "code", attempt=1), failed])
        ports = fake_ports(ScriptedSandbox(lambda *_: None))
        ended = end(state, ports, "FAILED", error=state.steps["A"].error)
        assert ended.error == state.error == "a\ufffdb"

    async def test_at_rest_a_run_ends_as_what_stopped_it_says(self) -> None:
        found = {}
        for kind in (None, "cancel", "deadline", "storage"):
            ports = fake_ports(ScriptedSandbox(lambda *_: None))
            ports.stop.kind, ports.stop.words = kind, "no room"
            ended = end_at_rest(RunState(), ports)
            found[kind] = (ended.status, ended.code)
        assert found == {
            None: ("CANCELLED", None),
            "cancel": ("CANCELLED", None),
            "deadline": ("FAILED", "timeout"),
            "storage": ("FAILED", "storage"),
        }


class TestResult:
    async def test_the_last_completed_code_step_decides(self) -> None:
        steps = [
            code("A", "B"),
            code("B", "H", throw_on_error=False),
            step("http_request", "H", url="http://x/"),
        ]
        run = await play(*steps, table={"code_A()": "a", "code_B()": BROKE})
        assert run.result == "a"

    async def test_else_the_last_completed_step_of_another_kind(self) -> None:
        steps = [
            step("input", "IN", "H", input={}),
            step("http_request", "H", "X", url="http://x/"),
            branch("X", {}, "I"),
            step("input", "I", input={}),
        ]
        run = await play(*steps)
        assert run.ended.result_key == "H"
        assert run.result["status"] == 200

    async def test_inputs_and_branches_are_no_result(self) -> None:
        run = await play(step("input", "IN", "X", input={}), branch("X", {}))
        assert (run.ended.status, run.result) == ("COMPLETED", None)

    async def test_the_list_of_a_loop_is_a_result(self) -> None:
        items = iter([1, 2])
        run = await play(code("A", loop="more"), table={"more": lambda _: next(items, None)})
        assert run.result == ["code_A()", "code_A()"]

    async def test_equally_far_steps_count_by_their_place(self) -> None:
        run = await play(code("IN", "B", "A"), code("A"), code("B"))
        assert run.result == "code_B()"

    async def test_a_run_of_skipped_steps_is_skipped(self) -> None:
        steps = [code("A", "B", conditional="no"), code("B", conditional="no")]
        run = await play(*steps, table={"no": False})
        assert (run.ended.status, run.result) == ("SKIPPED", None)
