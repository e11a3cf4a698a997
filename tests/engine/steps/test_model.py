"""*model*: rounds, answers, streams, resumption."""

import asyncio
from typing import Any

import pytest
from tests.engine.stage import Stage, code, folded, model, play, settled

from insula.engine.events import Chunk, StepEnded, StepReset, UnitEnded, UnitStarted
from insula.engine.failures import StepFailure
from insula.engine.ports import ModelDelta, ModelRequest, ModelToolCall
from insula.kit.json import Raw
from insula.testing import ListRecorder, ScriptedModels

NOW = {"retry": {"max": 2, "backoff": 0}}
CALL = ModelToolCall("c1", "T", {"q": 1})
TOOL = {**code("T"), "code": "tool(args)"}


async def test_an_answer(model_replies: Any) -> None:
    models = ScriptedModels([model_replies("Hello you")])
    run = await play(model("M", temperature=0.5, max_tokens=9, seed=7), models=models)
    assert run.outputs == {"M": {"provider": "mock", "model": "m", "message": "Hello you"}}
    assert run.state.credits == 1
    (request,) = models.requests
    assert request.messages == ({"role": "user", "content": "Hello"},)
    assert (request.temperature, request.max_tokens, request.timeout) == (0.5, 9, 600)
    assert request.options == {"seed": 7}
    assert (request.tools, request.tools_mode, request.tools_parallel) == ((), "auto", True)


async def test_it_streams_every_piece_before_its_end(model_replies: Any) -> None:
    run = await play(model("M"), models=ScriptedModels([model_replies("one two")]))
    chunks = [e for e in run.events if isinstance(e, Chunk)]
    assert [(c.text, c.provider, c.model, c.index) for c in chunks] == [
        ("one ", "mock", "m", None),
        ("two", "mock", "m", None),
    ]
    kinds = [type(e).__name__ for e in run.events]
    assert kinds[1:-1] == [
        "StepStarted",
        "UnitStarted",
        "Chunk",
        "Chunk",
        "UnitEnded",
        "StepEnded",
    ]


async def test_refusals_and_raw_answers_are_kept(model_replies: Any) -> None:
    reply = model_replies("", refusal="I will not", raw={"id": 1})
    run = await play(model("M", response_format="json"), models=ScriptedModels([reply]))
    assert run.outputs["M"]["refusal"] == "I will not"
    assert run.outputs["M"]["raw"] == {"id": 1}
    assert run.outputs["M"]["message"] == ""


class TestJson:
    @pytest.mark.parametrize("text", ['{"a": [1]}', "3", '"text"', " null "])
    async def test_it_is_parsed(self, text: str, model_replies: Any) -> None:
        models = ScriptedModels([model_replies(text)])
        run = await play(model("M", response_format="json"), models=models)
        assert run.outputs["M"]["message"] == {"{": {"a": [1]}, "3": 3, '"': "text"}.get(text[0])
        assert models.requests[0].response_format == "json"

    async def test_what_is_none_fails_the_round_and_may_be_retried(
        self, model_replies: Any
    ) -> None:
        replies = [model_replies("Sure! {"), model_replies("{}")]
        run = await play(
            model("M", response_format="json", more=NOW), models=ScriptedModels(replies)
        )
        assert run.outputs["M"]["message"] == {}
        assert run.state.credits == 2
        failed = await play(
            model("M", response_format="json"), models=ScriptedModels([model_replies("no")])
        )
        assert (failed.ended.status, failed.ended.code) == ("FAILED", "provider")
        assert "response_format" in (failed.ended.error or "")
        assert failed.state.credits == 1

    @pytest.mark.parametrize("depth", [200, 201, 900, 5000])
    async def test_it_nests_no_deeper_than_what_is_shown_can(
        self, depth: int, model_replies: Any
    ) -> None:
        models = ScriptedModels([model_replies("[" * depth + "]" * depth)])
        run = await play(model("M", response_format="json"), models=models)
        if depth == 200:
            assert run.ended.status == "COMPLETED"
            return
        assert (run.ended.status, run.ended.code, run.state.credits) == ("FAILED", "provider", 1)
        assert "200 levels" in (run.ended.error or "")

    async def test_arguments_of_a_call_are_bounded_as_well(self, model_replies: Any) -> None:
        deep: Any = {}
        for _ in range(200):
            deep = {"a": deep}
        replies = [model_replies("", tool_calls=(ModelToolCall("c1", "T", deep),))]
        run = await play(model("M", tools=["T"]), TOOL, models=ScriptedModels(replies))
        assert (run.ended.status, run.ended.code, run.state.credits) == ("FAILED", "provider", 1)
        assert "200 levels" in (run.ended.error or "")


class TestBrokenProvider:
    async def test_its_failure_is_the_steps(self) -> None:
        down = StepFailure("429", "rate_limited")
        run = await play(model("M"), models=ScriptedModels([down]))
        assert (run.ended.status, run.ended.code) == ("FAILED", "rate_limited")

    async def test_an_answer_without_an_end_is_none(self) -> None:
        class Endless(ScriptedModels):
            async def stream(self, request: ModelRequest, activity: Any) -> Any:
                yield ModelDelta("half")

        run = await play(model("M"), models=Endless([]))
        assert (run.ended.code, run.outputs) == ("provider", {"M": None})

    async def test_what_cannot_be_stored_is_a_failure(self, model_replies: Any) -> None:
        run = await play(
            model("M"), models=ScriptedModels([model_replies("", raw={"x": "\ud800"})])
        )
        assert (run.ended.status, run.ended.code) == ("FAILED", "provider")


class TestStream:
    async def test_a_restart_of_the_provider_empties_it(self, model_replies: Any) -> None:
        class Restarting(ScriptedModels):
            async def stream(self, request: ModelRequest, activity: Any) -> Any:
                yield ModelDelta("wrong")
                yield ModelDelta("", restart=True)
                yield ModelDelta("right")
                yield model_replies("right")

        run = await play(model("M"), models=Restarting([]))
        told = [e for e in run.events if isinstance(e, Chunk | StepReset)]
        assert [type(e).__name__ for e in told] == ["Chunk", "StepReset", "Chunk"]

    async def test_a_repeated_attempt_empties_it(self, model_replies: Any) -> None:
        class Breaking(ScriptedModels):
            async def stream(self, request: ModelRequest, activity: Any) -> Any:
                self.requests.append(request)
                yield ModelDelta("half")
                if len(self.requests) == 1:
                    raise StepFailure("reset", "network")
                yield model_replies("half an answer")

        models = Breaking([])
        run = await play(model("M", more=NOW), models=models)
        kinds = [type(e).__name__ for e in run.events[2:-1]]
        assert kinds == [
            "UnitStarted",
            "Chunk",
            "UnitEnded",
            "StepReset",
            "UnitStarted",
            "Chunk",
            "UnitEnded",
            "StepEnded",
        ]
        first, second = (request.idempotency_key for request in models.requests)
        assert first == second

    async def test_cancelled_in_mid_token_it_is_closed_and_half_the_answer_kept(self) -> None:
        closed: list[bool] = []

        class Slow(ScriptedModels):
            async def stream(self, request: ModelRequest, activity: Any) -> Any:
                activity.effect_possible = True
                try:
                    yield ModelDelta("half ")
                    await asyncio.get_running_loop().create_future()
                finally:
                    closed.append(True)

        stage = Stage(model("M"), models=Slow([])).begin()
        await settled()
        stage.cancel()
        run = await stage.end()
        assert run.outputs["M"] == {"provider": "mock", "model": "m", "message": "half "}
        assert closed == [True]
        (told,) = run.ended.interruptions
        assert (told.doing, told.effect_possible) == ("model step: model mock/m", True)

    async def test_it_is_closed_when_a_piece_cannot_be_recorded(self, model_replies: Any) -> None:
        def refuse(event: Any) -> None:
            if isinstance(event, Chunk):
                raise StepFailure("half of a surrogate pair", "script")

        models = ScriptedModels([model_replies("x")])
        run = await play(model("M"), models=models, recorder=ListRecorder(after=refuse))
        assert run.statuses == {"M": "FAILED"}
        assert models.closed == 1

    async def test_a_round_may_take_so_long(self) -> None:
        class Slow(ScriptedModels):
            async def stream(self, request: ModelRequest, activity: Any) -> Any:
                assert request.timeout == 0.001
                await asyncio.get_running_loop().create_future()
                yield ModelDelta("never")

        run = await play(model("M", more={"timeout": 0.001}), models=Slow([]))
        assert (run.ended.status, run.ended.code) == ("FAILED", "timeout")


class TestRounds:
    async def test_it_hears_what_its_tools_answered(self, model_replies: Any) -> None:
        replies = [model_replies("Let me see", CALL), model_replies("Found 2")]
        models = ScriptedModels(replies)
        run = await play(model("M", tools=["T"]), TOOL, models=models, table={"tool(args)": [1, 2]})
        assert run.outputs["M"]["message"] == "Found 2"
        assert "tool_calls" not in run.outputs["M"]
        assert models.requests[1].messages[1:] == (
            {
                "role": "assistant",
                "content": "Let me see",
                "tools": [{"id": "c1", "name": "T", "input": {"q": 1}}],
            },
            {
                "role": "tool",
                "content": [{"type": "tool_result", "id": "c1", "name": "T", "output": [1, 2]}],
            },
        )

    async def test_so_many_rounds_and_no_more(self, model_replies: Any) -> None:
        models = ScriptedModels([model_replies("", CALL) for _ in range(9)])
        run = await play(model("M", tools=["T"], max_iterations=3), TOOL, models=models)
        assert (run.ended.status, run.ended.code) == ("FAILED", "limit_iterations")
        assert "max_iterations" in (run.ended.error or "")
        assert len(models.requests) == 3
        assert len(run.scripts) == 2  # of the last round nobody would hear the answers

    async def test_ten_is_the_default(self, model_replies: Any) -> None:
        models = ScriptedModels([model_replies("", CALL) for _ in range(99)])
        await play(model("M", tools=["T"]), TOOL, models=models)
        assert len(models.requests) == 10

    async def test_a_tool_is_required_in_the_first_round_only(self, model_replies: Any) -> None:
        models = ScriptedModels([model_replies("", CALL), model_replies("done")])
        await play(model("M", tools=["T"], tools_mode="required"), TOOL, models=models)
        assert [request.tools_mode for request in models.requests] == ["required", "auto"]

    async def test_each_round_and_each_model_has_its_own_effect_key(
        self, model_replies: Any
    ) -> None:
        models = ScriptedModels([model_replies("", CALL), model_replies("done"), model_replies("")])
        await play(model("M", "N", tools=["T"]), TOOL, model("N"), models=models)
        assert len({request.idempotency_key for request in models.requests}) == 3


async def test_the_conversation_goes_on_from_wherever_its_process_died(model_replies: Any) -> None:
    second = ModelToolCall("c2", "T", {"q": 2})
    script = [model_replies("a", CALL), model_replies("b", second, CALL), model_replies("end")]

    def models_from(round_number: int) -> ScriptedModels:
        return ScriptedModels(script[round_number:])

    steps = [model("M", tools=["T"]), TOOL]
    table = {"tool(args)": lambda scope: scope["args"]["q"]}
    whole = await play(*steps, models=models_from(0), table=table)
    for length in range(len(whole.events)):
        before = whole.events[:length]
        rounds = [e for e in before if isinstance(e, UnitEnded) and e.call is None]
        calls = [e for e in before if isinstance(e, UnitEnded) and e.call is not None]
        models = models_from(len(rounds))
        run = await play(*steps, models=models, table=table, state=folded(before))
        assert (run.outputs, run.statuses) == (whole.outputs, whole.statuses)
        assert run.state.credits == whole.state.credits
        told = [(c.id, c.status, c.output) for c in run.state.steps["M"].calls.values()]
        assert told == [(c.id, c.status, c.output) for c in whole.state.steps["M"].calls.values()]
        if not any(isinstance(e, StepEnded) for e in before):
            assert len(models.requests) == 3 - len(rounds)
            assert len(run.scripts) == 3 - len(calls)
        if models.requests:  # what was said before is said again, word for word
            assert len(models.requests[-1].messages) == 5


async def test_an_interrupted_round_counts_and_may_be_forbidden(model_replies: Any) -> None:
    whole = await play(model("M"), models=ScriptedModels([model_replies("half an answer")]))
    place = next(i for i, e in enumerate(whole.events) if isinstance(e, Chunk))
    before = whole.events[: place + 1]
    careful = await play(model("M", more={"on_interrupt": "fail"}), state=folded(before))
    assert (careful.ended.status, careful.ended.code) == ("FAILED", "interrupted")
    run = await play(
        model("M"), state=folded(before), models=ScriptedModels([model_replies("again")])
    )
    assert run.outputs["M"]["message"] == "again"
    assert run.state.steps["M"].attempts == 2
    assert [type(e) for e in run.events[:2]] == [StepReset, UnitStarted]


async def test_its_settings_are_templates(model_replies: Any) -> None:
    models = ScriptedModels([model_replies("x")])
    step = model("M", provider="{{input.p}}", model=" {{input.m}} ", messages="{{input.list}}")
    given = Raw(b'{"p":"openai","m":"gpt","list":[{"role":"system","content":"{{input.p}}"}]}')
    await play(step, models=models, input=given)
    (request,) = models.requests
    assert (request.provider, request.model) == ("openai", "gpt")
    assert request.messages == ({"role": "system", "content": "{{input.p}}"},)
