"""Attempts at units: retry, backoff, timeouts, interruptions."""

import asyncio
from typing import Any

import pytest
from tests.engine.stage import Stage, code, document, folded, model, play, settled, step

from insula.engine.attempts import delay, seconds
from insula.engine.document import Retry
from insula.engine.events import (
    Event,
    RunStarted,
    StepEnded,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest, HttpResponse, Timeouts
from insula.engine.state import fold
from insula.kit import json
from insula.testing import RecordedHttp

NOW = {"max": 2, "backoff": 0}


def failing(*codes: str) -> Any:
    """Fail so many times with these codes, then answer."""
    left = list(codes)

    def answer(scope: Any) -> str:
        if left:
            raise StepFailure(f"broke: {left[0]}", left.pop(0))
        return "done"

    return answer


class TestRetry:
    async def test_it_is_off_by_default(self) -> None:
        run = await play(code("A"), table={"code_A()": failing("network")})
        assert run.statuses == {"A": "FAILED"}
        assert run.scripts == ["code_A()"]

    async def test_a_failed_attempt_is_followed_by_another(self) -> None:
        run = await play(
            code("A", retry=NOW), table={"code_A()": failing("network", "engine_crash")}
        )
        assert run.outputs == {"A": "done"}
        assert run.state.steps["A"].attempts == 3
        assert [type(e).__name__ for e in run.events[1:-1]] == [
            "StepStarted",
            "UnitEnded",
            "UnitStarted",
            "UnitEnded",
            "UnitStarted",
            "StepEnded",
        ]

    async def test_it_ends_after_so_many(self) -> None:
        run = await play(code("A", retry=NOW), table={"code_A()": failing("a", "b", "c", "d")})
        assert (run.ended.status, run.ended.code) == ("FAILED", "c")
        assert len(run.scripts) == 3

    async def test_it_may_name_the_codes(self) -> None:
        only = {**NOW, "on": ["network"]}
        run = await play(code("A", retry=only), table={"code_A()": failing("network", "script")})
        assert run.ended.code == "script"
        assert len(run.scripts) == 2

    @pytest.mark.parametrize("never", ["limit_output", "limit_logs", "egress", "input"])
    async def test_what_would_fail_again_is_not_tried_again(self, never: str) -> None:
        run = await play(code("A", retry=NOW), table={"code_A()": failing(never)})
        assert run.ended.code == never

    async def test_each_iteration_is_tried_by_itself(self) -> None:
        table = {"more(index)": lambda s: s["index"] < 2, "code_A()": failing("network")}
        run = await play(code("A", loop="more(index)", retry=NOW), table=table)
        assert run.outputs == {"A": ["done", "done"]}
        assert run.scripts.count("code_A()") == 3

    async def test_failed_attempts_count_across_a_crash(self) -> None:
        table = {"code_A()": failing("network", "network", "network")}
        first = await play(code("A", retry=NOW), table=table)
        # The process dies right after the second failure was stored.
        ends = [i for i, e in enumerate(first.events) if isinstance(e, UnitEnded)]
        state = folded(first.events[: ends[1] + 1])
        run = await play(code("A", retry=NOW), state=state, table={"code_A()": failing("network")})
        assert run.statuses == {"A": "FAILED"}
        assert run.scripts == ["code_A()"]

    async def test_while_it_waits_a_cancel_stops_it(self) -> None:
        patient = code("A", retry={"max": 1, "backoff": 3600})
        stage = Stage(patient, table={"code_A()": failing("network")}).begin()
        await settled()
        stage.cancel()
        run = await stage.end()
        assert run.statuses == {"A": "CANCELLED"}
        assert run.ended.interruptions[0].doing == "waiting to try again"
        assert not run.ended.interruptions[0].effect_possible

    def test_the_wait_doubles_up_to_five_minutes(self) -> None:
        retry = Retry(max=100, backoff=1.5)
        assert [delay(retry, n) for n in (1, 2, 3)] == [1.5, 3, 6]
        assert delay(retry, 9) == delay(retry, 100) == 300


class TestTimeout:
    async def test_an_attempt_that_takes_longer_is_stopped(self) -> None:
        stopped: list[bool] = []

        async def never(request: HttpRequest) -> HttpResponse:
            try:
                return await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                stopped.append(True)
                raise

        steps = [step("http_request", "H", url="http://x/", timeout=0.001, retry=NOW)]
        run = await play(*steps, http=RecordedHttp(never))
        assert (run.ended.status, run.ended.code) == ("FAILED", "timeout")
        assert "0.001 s" in (run.ended.error or "")
        assert stopped == [True] * 3

    async def test_a_ports_own_timeout_is_not_taken_for_the_steps(self) -> None:
        def late(request: HttpRequest) -> HttpResponse:
            raise TimeoutError

        steps = [step("http_request", "H", url="http://x/")]
        assert (await play(*steps, http=RecordedHttp(late))).ended.code == "internal"

    def test_how_long_one_may_take(self) -> None:
        steps = document(
            code("A", timeout=5),
            model("M", more={"timeout": 5}),
            step("http_request", "H", url="http://x/"),
            step("http_request", "H2", url="http://x/", timeout=5),
            step("browser", "W", url="http://x/"),
            step("workflow", "C", input={}),
        ).steps
        told = [seconds(one, Timeouts()) for one in steps]
        assert told == [None, None, 60, 5, 120, None]

    async def test_code_has_its_time_as_a_limit_of_the_sandbox(self) -> None:
        own = {"cpu": 1, "wall": 1e9, "memory": 1024.0}
        run = await play(code("A", timeout=5), code("B", limits=own))
        first, second = (one.limits for one in run.ports.sandbox.evaluations)  # type: ignore[attr-defined]  # the fake's
        assert first.wall == 5
        assert (second.cpu, second.wall, second.memory) == (1, 300, 1024)

    @pytest.mark.parametrize("where", ["code", "conditional", "loop"])
    async def test_code_over_its_own_time_is_a_timeout(self, where: str) -> None:
        """Of what the sandbox says only: it cannot know whose limit it was given."""
        slow = StepFailure("longer than limits.wall", "limit_wall", logs=json.raw([1]))
        step = {**code("A", timeout=0.5), where: "slow"}
        run = await play(step, table={"slow": slow})
        assert (run.ended.code, run.ended.error) == ("timeout", "No result within 0.5 s (timeout)")
        assert run.state.steps["A"].all_logs() == json.raw([1])
        for longer in ({"timeout": 500}, {"timeout": 5, "limits": {"wall": 1}}):
            run = await play({**step, **longer}, table={"slow": slow})
            assert run.ended.code == "limit_wall"

    async def test_code_over_its_own_time_may_be_tried_again_for_that(self) -> None:
        again = {"max": 1, "backoff": 0, "on": ["timeout"]}
        run = await play(
            code("A", timeout=5, retry=again), table={"code_A()": failing("limit_wall")}
        )
        assert run.outputs == {"A": "done"}

    async def test_where_a_step_says_nothing_the_installation_does(self) -> None:
        steps = [code("A", conditional="ask"), code("B", timeout=50), code("C", timeout=500)]
        run = await play(*steps, timeouts=Timeouts(code=7))
        walls = [one.limits.wall for one in run.ports.sandbox.evaluations]  # type: ignore[attr-defined]  # the fake's
        assert walls == [300, 7, 50, 300]


def interrupted(times: int) -> list[Event]:
    """A step whose process died so many times while it ran."""
    events: list[Event] = [RunStarted(1), StepStarted(1, "A", "code", attempt=1)]
    return [*events, *(UnitStarted(1, "A", 2 + n) for n in range(times - 1))]


class TestInterruption:
    @pytest.mark.parametrize("times", [1, 2])
    async def test_it_is_tried_again(self, times: int) -> None:
        run = await play(code("A"), state=fold(interrupted(times)))
        assert run.outputs == {"A": "code_A()"}
        assert run.state.steps["A"].attempts == times + 1

    async def test_after_three_it_fails(self) -> None:
        run = await play(code("A"), state=fold(interrupted(3)))
        assert (run.ended.status, run.ended.code) == ("FAILED", "interrupted")
        assert "3 times" in (run.ended.error or "")
        assert run.scripts == []

    async def test_on_interrupt_fail_makes_it_at_most_once(self) -> None:
        run = await play(code("A", on_interrupt="fail"), state=fold(interrupted(1)))
        assert (run.ended.status, run.ended.code) == ("FAILED", "interrupted")
        assert run.scripts == []

    async def test_a_step_that_had_not_begun_is_not_interrupted(self) -> None:
        run = await play(code("A", on_interrupt="fail"), state=fold([RunStarted(1)]))
        assert run.statuses == {"A": "COMPLETED"}

    async def test_an_iteration_is_interrupted_by_itself(self) -> None:
        events: list[Event] = [
            StepStarted(1, "A", "code", looped=True),
            UnitStarted(1, "A", 1, index=0),
            UnitEnded(2, "A", index=0, output=json.raw("first")),
            UnitStarted(3, "A", 1, index=1),
        ]
        table = {"more(index)": lambda s: s["index"] < 2}
        looped = code("A", loop="more(index)", throw_on_error=False)
        run = await play(looped, state=fold(events), table=table)
        assert run.outputs == {"A": ["first", "code_A()"]}
        assert run.scripts == ["more(index)", "code_A()", "more(index)"]
        careful = await play({**looped, "on_interrupt": "fail"}, state=fold(events), table=table)
        assert (careful.statuses, careful.outputs) == ({"A": "FAILED"}, {"A": ["first"]})

    async def test_an_attempt_has_the_same_effects_keys_as_the_one_before(self) -> None:
        http = RecordedHttp(lambda request: HttpResponse(200, (), b"", request.url))
        request = step("http_request", "H", url="http://x/")
        await play(request, http=http)
        dead: list[Event] = [RunStarted(1), StepStarted(1, "H", "http_request", attempt=1)]
        await play(request, http=http, state=fold(dead))
        await play({**request, "key": "OTHER"}, http=http)
        first, again, other = (one.idempotency_key for one in http.requests)
        assert first == again != other


async def test_the_end_of_the_last_attempt_is_the_steps() -> None:
    run = await play(code("A"))
    (ended,) = (e for e in run.events if isinstance(e, StepEnded))
    assert ended.status == "COMPLETED"
    assert not any(isinstance(e, UnitEnded) for e in run.events)
