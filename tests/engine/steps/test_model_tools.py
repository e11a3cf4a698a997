"""The tools of a model step."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.stage import Gates, Played, Stage, code, folded, model, play, settled, step

from insula.engine.events import UnitEnded, UnitStarted
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    Activity,
    ChildOutcome,
    Evaluated,
    Evaluation,
    Fenced,
    HttpRequest,
    HttpResponse,
    ModelReply,
    ModelToolCall,
)
from insula.engine.state import CallState
from insula.engine.view import usage_view
from insula.kit import json
from insula.kit.json import Raw
from insula.testing import (
    ListRecorder,
    RecordedHttp,
    ScriptedChildren,
    ScriptedModels,
    ScriptedSandbox,
)

TOOL = {**code("T"), "code": "tool(args)"}


def call(name: str = "T", call_id: str = "c1", given: Any = None) -> ModelToolCall:
    return ModelToolCall(call_id, name, {} if given is None else given)


def calls_of(run: Played) -> list[CallState]:
    return list(run.state.steps["M"].calls.values())


def heard(models: ScriptedModels, round_number: int = 1) -> list[Any]:
    """What the model was told that its tools answered."""
    return [part["output"] for part in models.requests[round_number].messages[-1]["content"]]


class Asking(ScriptedModels):
    """Calls these tools in its first round, then says that it is done."""

    def __init__(self, *calls: ModelToolCall) -> None:
        done = ModelReply("mock", "m", "done", credits=1.0)
        super().__init__([ModelReply("mock", "m", "", calls, credits=1.0), done])


class TestWhatTheModelIsTold:
    async def test_of_its_tools(self, model_replies: Any) -> None:
        told = {
            "name": "T",
            "description": "Finds it",
            "input": {"q": {"type": "string"}},
        }
        tools = [told, "U", "external:V", {"name": "external:T2", "description": "Yours"}, "U"]
        models = ScriptedModels([model_replies("x")])
        steps = [model("M", tools=tools), TOOL, {**code("U"), "description": "Does U"}]
        await play(*steps, models=models)
        made = models.requests[0].tools
        assert [(t.name, t.description) for t in made] == [
            ("T", "Finds it"),
            ("U", "Does U"),
            ("V", "Runs V"),
            ("T2", "Yours"),
        ]
        assert made[0].schema["properties"] == {"q": {"type": "string"}}
        assert made[0].schema["required"] == ["q"]
        assert made[1].schema["type"] == "object"


class TestCalls:
    async def test_a_call_is_an_entry_and_no_step(self) -> None:
        tool = {**TOOL, "destinations": ["AFTER"], "loop": "never"}
        steps = [model("M", tools=["T"]), tool, code("AFTER")]
        run = await play(
            *steps,
            models=Asking(call(given={"q": 2})),
            table={
                "tool(args)": lambda scope: scope["args"]["q"] * 2,
            },
        )
        assert set(run.statuses) == {"M"}
        (one,) = calls_of(run)
        assert (one.id, one.key, one.type, one.status) == ("c1", "T", "code", "COMPLETED")
        assert one.output == Raw(b"4")
        assert run.scripts == ["tool(args)"]

    async def test_a_tool_sees_what_the_model_step_sees(self) -> None:
        seen: dict[str, Any] = {}
        steps = [
            code("A", "M"),
            model("M", tools=["T"], more={"loop": "next(index)"}),
            {**code("T"), "code": "look(A, item, index, args, M)"},
        ]
        table = {
            "look(A, item, index, args, M)": lambda scope: seen.update(scope) or 1,
            "next(index)": lambda scope: "first" if scope["index"] == 0 else None,
        }
        run = await play(*steps, models=Asking(call(given={"q": 1})), table=table)
        assert seen["A"]["output"] == "code_A()"
        assert (seen["item"], seen["index"], seen["args"]) == ("first", 0, {"q": 1})
        assert "M" not in seen
        assert calls_of(run)[0].index == 0

    async def test_its_failure_is_an_answer_to_the_model(self) -> None:
        models = Asking(call())
        broken = {"tool(args)": StepFailure("no such thing", "script")}
        run = await play(model("M", tools=["T"]), TOOL, models=models, table=broken)
        assert run.statuses == {"M": "COMPLETED"}
        assert heard(models) == [{"error": "no such thing"}]
        assert (calls_of(run)[0].status, calls_of(run)[0].error) == ("FAILED", "no such thing")

    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            (call("GONE"), "There is no tool 'GONE'"),
            (call("OTHER"), "There is no tool 'OTHER'"),
            (call("T", given=[1]), "The arguments of T must be an object"),
            (call("T", given="text"), "The arguments of T must be an object"),
        ],
    )
    async def test_what_cannot_be_called_is_told(self, asked: ModelToolCall, told: str) -> None:
        models = Asking(asked)
        other = model("N", tools=["OTHER"])  # another step's tool is none of this one's
        steps = [model("M", "N", tools=["T"]), TOOL, other, code("OTHER")]
        run = await play(*steps, models=models)
        assert heard(models) == [{"error": told}]
        assert calls_of(run) == []

    async def test_its_conditional_guards_it(self) -> None:
        models = Asking(call(given={"sum": 5}), call(call_id="c2", given={"sum": 500}))
        steps = [model("M", tools=["T"]), {**TOOL, "conditional": "small(args)"}]
        table = {"small(args)": lambda scope: scope["args"]["sum"] < 100}
        run = await play(*steps, models=models, table=table)
        told = "T was not run: its conditional does not hold"
        assert heard(models) == ["tool(args)", {"error": told}]
        assert [one.id for one in calls_of(run)] == ["c1"]
        assert run.scripts.count("tool(args)") == 1

    async def test_a_name_of_any_length_stays_short_in_words(self) -> None:
        models = Asking(call("X" * 10_000))
        await play(model("M", tools=["T"]), TOOL, models=models)
        assert len(heard(models)[0]["error"]) < 300

    @pytest.mark.parametrize(
        "ids", [["", ""], ["c", "c"], ["a/b", "#0.0"], ["é" * 999, "x y"], ["0.1", "\0"]]
    )
    async def test_hostile_ids_name_no_other_call(self, ids: list[str]) -> None:
        asked = [call(call_id=one, given={"q": place}) for place, one in enumerate(ids)]
        models = Asking(*asked)
        table = {"tool(args)": lambda scope: scope["args"]["q"]}
        run = await play(model("M", tools=["T"]), TOOL, models=models, table=table)
        assert heard(models) == [0, 1]
        assert [one.output for one in calls_of(run)] == [Raw(b"0"), Raw(b"1")]
        assert [part["id"] for part in models.requests[1].messages[-1]["content"]] == ids
        folded(run.events)

    @pytest.mark.parametrize("loop", [None, "index < 2"])
    async def test_ids_are_its_own_in_every_round_and_iteration(
        self, loop: str | None, model_replies: Any
    ) -> None:
        """Models name calls as they like, and the next time the same; after a crash too."""
        asks = model_replies("", call(), call(call_id="x y"))
        replies = [asks, asks, model_replies("done")] * 2
        steps = [model("M", tools=["T"], more={"loop": loop}), TOOL]
        table = {"index < 2": lambda scope: scope["index"] < 2}
        run = await play(*steps, models=ScriptedModels(replies), table=table)
        ids = [one.id for one in calls_of(run)]
        named = ["c1", "#0.1", "c1@0.1", "#1.1"]
        again = ["c1@1.0", "#0.1@1.0", "c1@1.1", "#1.1@1.1"]
        assert ids == (named + again if loop else ["c1", "#0.1", "c1@1", "#1.1"])
        for length in range(len(run.events)):
            left = replies[
                sum(
                    isinstance(e, UnitEnded) and e.call is None and e.round is not None
                    for e in run.events[:length]
                ) :
            ]
            resumed = await play(
                *steps,
                models=ScriptedModels(left),
                table=table,
                state=folded(run.events[:length]),
            )
            assert [one.id for one in calls_of(resumed)] == ids

    async def test_it_costs_what_it_costs_once(self) -> None:
        children = ScriptedChildren(lambda r: ChildOutcome("COMPLETED", Raw(b"{}"), None, 5.0))
        steps = [model("M", tools=["C"]), step("workflow", "C", input={}, workflow_id="w")]
        run = await play(*steps, models=Asking(call("C")), children=children)
        usage = {"total": 7.0, "calls": [{"id": "c1", "total": 5.0}]}
        assert usage_view(run.state) == {"total": 7.0, "steps": {"M": usage}}

    async def test_a_result_over_the_runs_limit_is_a_failed_call(self) -> None:
        models = Asking(call())
        run = await play(
            model("M", tools=["T"]),
            TOOL,
            models=models,
            max_output=200,
            table={"tool(args)": "x" * 500},
        )
        assert run.statuses == {"M": "COMPLETED"}
        assert "INSULA_RUN_OUTPUT_MAX" in heard(models)[0]["error"]
        assert calls_of(run)[0].status == "FAILED"


class TestTogether:
    async def test_calls_of_a_round_run_at_the_same_time(self) -> None:
        gates = Gates()
        models = Asking(call(call_id="a", given={"q": 1}), call(call_id="b", given={"q": 2}))
        table = {"tool(args)": lambda scope: scope["args"]["q"]}
        stage = Stage(
            model("M", tools=["T"]), TOOL, models=models, table=table, pause=gates
        ).begin()
        await settled()
        assert len(gates.waiting) == 2
        gates.let(1)
        gates.let()
        run = await stage.end()
        assert heard(models) == [1, 2]  # in the order in which they were asked for
        assert run.statuses == {"M": "COMPLETED"}

    async def test_one_after_another_where_the_step_says_so(self) -> None:
        gates = Gates()
        models = Asking(call(call_id="a"), call(call_id="b"))
        steps = [model("M", tools=["T"], tools_parallel=False), TOOL]
        stage = Stage(*steps, models=models, pause=gates).begin()
        for _ in range(2):
            await settled()
            assert len(gates.waiting) == 1
            gates.let()
        assert (await stage.end()).statuses == {"M": "COMPLETED"}
        assert models.requests[0].tools_parallel is False

    async def test_a_cancel_stops_them_all(self) -> None:
        gates = Gates()
        models = Asking(call(call_id="a"), call(call_id="b"))
        stage = Stage(model("M", tools=["T"]), TOOL, models=models, pause=gates).begin()
        await settled()
        gates.let()
        await settled()
        stage.cancel()
        run = await stage.end()
        assert run.statuses == {"M": "CANCELLED"}
        assert [one.status for one in calls_of(run)] == ["COMPLETED", "CANCELLED"]
        assert run.ended.interruptions[0].doing == "model step: tool T: evaluating"
        assert len(models.requests) == 1

    async def test_a_run_that_is_lost_is_dropped(self) -> None:
        class Lost(ListRecorder):
            async def stored(self) -> None:
                if len(models.requests) == 1:
                    raise Fenced

        models = Asking(call("H", "a"), call("H", "b"))
        steps = [model("M", tools=["H"]), step("http_request", "H", url="http://x/")]
        with pytest.raises(Fenced):
            await play(*steps, models=models, recorder=Lost())


class TestExternal:
    async def test_it_ends_the_step_with_the_calls(self, model_replies: Any) -> None:
        reply = model_replies("Please", call("V", "v1", {"a": 1}), call("T", "t1"))
        run = await play(
            model("M", tools=["external:V", "T"], response_format="json"),
            TOOL,
            models=ScriptedModels([reply]),
            table={"tool(args)": {"found": 1}},
        )
        assert run.outputs["M"] == {
            "provider": "mock",
            "model": "m",
            "message": "Please",
            "tool_calls": [{"id": "v1", "name": "V", "input": {"a": 1}}],
            "tool_results": [{"id": "t1", "name": "T", "output": {"found": 1}}],
        }

    async def test_in_the_last_round_too(self, model_replies: Any) -> None:
        models = ScriptedModels([model_replies("", call("V"))])
        run = await play(model("M", tools=["external:V"], max_iterations=1), models=models)
        assert run.statuses == {"M": "COMPLETED"}


class TestAttempts:
    async def test_a_tool_has_its_own_retry_and_timeout(self) -> None:
        left = [StepFailure("reset", "network")]

        async def answer(request: HttpRequest) -> HttpResponse:
            if left:
                raise left.pop()
            return await asyncio.get_running_loop().create_future()

        retry = {"max": 1, "backoff": 0}
        tool = step("http_request", "H", url="http://x/", retry=retry, timeout=0.001)
        models, http = Asking(call("H")), RecordedHttp(answer)
        run = await play(model("M", tools=["H"]), tool, models=models, http=http)
        assert "0.001 s" in heard(models)[0]["error"]
        assert http.requests[0].idempotency_key == http.requests[1].idempotency_key
        (one,) = calls_of(run)
        assert one.status == "FAILED"
        ends = [e for e in run.events if isinstance(e, UnitEnded) and e.call]
        assert [e.again for e in ends] == [True, False]

    async def test_a_crash_between_two_attempts_forgets_neither(self) -> None:
        tries = [StepFailure("reset", "network")]

        def answer(scope: Any) -> Any:
            if tries:
                raise tries.pop()
            return "found"

        tool = {**TOOL, "retry": {"max": 1, "backoff": 0}}
        steps, table = [model("M", tools=["T"]), tool], {"tool(args)": answer}
        whole = await play(*steps, models=Asking(call()), table=table)
        place = next(i for i, e in enumerate(whole.events) if isinstance(e, UnitEnded) and e.again)
        models = ScriptedModels([ModelReply("mock", "m", "done")])
        run = await play(
            *steps, models=models, table=table, state=folded(whole.events[: place + 1])
        )
        assert heard(models, 0) == ["found"]
        assert calls_of(run)[0].status == "COMPLETED"

    async def test_an_interrupted_child_goes_on_under_its_id(self) -> None:
        children = ScriptedChildren(
            lambda r: ChildOutcome("COMPLETED", json.raw({"run_id": r.run_id}), None)
        )
        steps = [model("M", tools=["C"]), step("workflow", "C", input={"x": 1}, workflow_id="w")]
        asked = call("C", given={"a": 1})
        whole = await play(*steps, models=Asking(asked), children=children)
        assert children.requests[0].input == Raw(b'{"a":1}')
        place = next(
            i for i, e in enumerate(whole.events) if isinstance(e, UnitStarted) and e.child
        )
        models = ScriptedModels([ModelReply("mock", "m", "done")])
        await play(
            *steps,
            models=models,
            children=children,
            state=folded(whole.events[: place + 1]),
            new_id=lambda prefix: "run_new",
        )
        assert [request.run_id for request in children.requests] == ["run_1", "run_1"]
        assert heard(models, 0) == [{"run_id": "run_1"}]


NESTED = [
    model("M", tools=["N"]),
    model("N", tools=["T", "C"], messages="{{args.q}}"),
    TOOL,
    step("workflow", "C", input={}, workflow_id="w"),
]


class TestNested:
    """A model step as the tool of another one: its rounds and calls are units as any other's."""

    def models(self, *inner: ModelReply) -> ScriptedModels:
        asks = ModelReply("mock", "m", "", (call("N", "n", {"q": "deep"}),), credits=1.0)
        return ScriptedModels([asks, *inner, ModelReply("mock", "m", "done", credits=1.0)])

    async def test_its_answer_is_the_calls(self, model_replies: Any) -> None:
        models = self.models(model_replies("", call()), model_replies("inner answer"))
        run = await play(*NESTED, models=models, table={"tool(args)": 5})
        assert models.requests[1].messages[0]["content"] == "deep"
        assert heard(models, 2) == [5]
        assert heard(models, 3) == [{"provider": "mock", "model": "m", "message": "inner answer"}]
        told = [(one.id, one.key, one.credits) for one in calls_of(run)]
        assert told == [("n", "N", 2), ("n/0/c1", "T", 0)]
        assert run.state.credits == 4
        assert not [e for e in run.events if type(e).__name__ == "Chunk" and e.text != "done"]
        assert len({request.idempotency_key for request in models.requests}) == 4

    async def test_what_failed_attempts_cost_is_counted(self, model_replies: Any) -> None:
        nested = model("N", response_format="json", more={"retry": {"max": 1, "backoff": 0}})
        models = self.models(model_replies("no json"), model_replies("{}"))
        run = await play(model("M", tools=["N"]), nested, models=models)
        assert run.state.credits == 4
        failing = self.models(model_replies("no json"), model_replies("neither"))
        failed = await play(model("M", tools=["N"]), nested, models=failing)
        assert failed.state.credits == 4
        assert calls_of(failed)[0].status == "FAILED"

    async def test_children_in_different_rounds_are_different(self, model_replies: Any) -> None:
        asked = model_replies("", call("C", "same"))
        models = self.models(asked, asked, model_replies("x"))
        children = ScriptedChildren(
            lambda r: ChildOutcome("COMPLETED", json.raw(r.run_id), None, 3.0)
        )
        run = await play(*NESTED, models=models, children=children)
        assert [request.run_id for request in children.requests] == ["run_1", "run_2"]
        assert [one.id for one in calls_of(run)] == ["n", "n/0/same", "n/1/same"]
        assert run.state.credits == 2 + 3 + 6

    async def test_its_logs_are_the_calls(self, model_replies: Any) -> None:
        models = self.models(model_replies("inner answer"))
        steps = [model("M", tools=["N"]), {**NESTED[1], "conditional": "noting()"}]
        run = await play(*steps, models=models, sandbox=Noting(lambda *_: True))
        assert calls_of(run)[0].logs == Raw(b'["noting()"]')
        assert run.state.steps["M"].all_logs() is None


class Noting(ScriptedSandbox):
    """Logs what it evaluates."""

    async def evaluate(self, request: Evaluation, activity: Activity) -> Evaluated:
        done = await super().evaluate(request, activity)
        return replace(done, logs=json.raw(list(request.scripts)))


PAYING = step("http_request", "PAY", url="http://bank/", method="POST", on_interrupt="fail")


class TestNestedAttempts:
    """What a model has done that another one called is never done again."""

    def steps(self, **more: Any) -> list[Any]:
        return [model("M", tools=["N"]), model("N", tools=["PAY"], more=more), PAYING]

    async def test_whatever_dies_no_unit_that_ended_is_done_again(self) -> None:
        """Cut anywhere, the run asks for what is left, and pays at most once."""
        rounds = [
            ModelReply("mock", "m", "", (call("N", "n"),), credits=1.0),
            ModelReply("mock", "m", "", (call("PAY", "p"),), credits=1.0),
            ModelReply("mock", "m", "paid", credits=1.0),
            ModelReply("mock", "m", "done", credits=1.0),
        ]
        http = RecordedHttp(lambda r: HttpResponse(200, (), b"ok", r.url))
        whole = await play(*self.steps(), models=ScriptedModels(rounds), http=http)
        paid = next(
            place
            for place, event in enumerate(whole.events)
            if isinstance(event, UnitEnded) and event.call == "n/0/p"
        )
        for cut in range(1, len(whole.events)):
            left = whole.events[:cut]
            stored = [e for e in left if isinstance(e, UnitEnded) and is_round(e)]
            http = RecordedHttp(lambda r: HttpResponse(200, (), b"ok", r.url))
            models = ScriptedModels(rounds[len(stored) :])
            run = await play(*self.steps(), models=models, http=http, state=folded(left))
            assert run.statuses == {"M": "COMPLETED"}
            assert run.state.credits == 4
            begun = any(isinstance(e, UnitStarted) and e.call == "n/0/p" for e in left)
            assert len(http.requests) == (0 if begun else 1), cut
            (pay,) = [one for one in calls_of(run) if one.key == "PAY"]
            assert pay.status == ("FAILED" if begun and cut <= paid else "COMPLETED")

    async def test_retry_is_for_each_round(self) -> None:
        """A round that fails for good fails the call; the conversation does not begin again."""
        rounds = [
            ModelReply("mock", "m", "", (call("N", "n"),)),
            ModelReply("mock", "m", "", (call("PAY", "p"),)),
            *(StepFailure("overloaded", "provider") for _ in range(2)),
            ModelReply("mock", "m", "done"),
        ]
        models = ScriptedModels(rounds)
        http = RecordedHttp(lambda r: HttpResponse(200, (), b"ok", r.url))
        retry = {"max": 1, "backoff": 0}
        await play(*self.steps(retry=retry), models=models, http=http)
        assert len(http.requests) == 1
        assert heard(models, 4) == [{"error": "overloaded"}]

    async def test_a_round_that_was_interrupted_is_not_asked_again_where_the_step_says_so(
        self,
    ) -> None:
        asks = ModelReply("mock", "m", "", (call("N", "n"),))
        done = ModelReply("mock", "m", "done")
        models = ScriptedModels([asks, ModelReply("mock", "m", "x"), done])
        steps = self.steps(on_interrupt="fail")
        whole = await play(*steps, models=models)
        begun = next(
            place
            for place, event in enumerate(whole.events)
            if isinstance(event, UnitStarted) and event.call == "n/0"
        )
        models = ScriptedModels([done])
        run = await play(*steps, models=models, state=folded(whole.events[: begun + 1]))
        assert "on_interrupt is fail" in heard(models, 0)[0]["error"]
        assert run.statuses == {"M": "COMPLETED"}


def is_round(event: UnitEnded) -> bool:
    return event.call is None or event.call.count("/") % 2 == 1
