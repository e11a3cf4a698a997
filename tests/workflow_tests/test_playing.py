"""What was recorded of a run, played to another one: the same answers, and nobody is asked."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.stage import Played, code, model, play, step
from tests.fetching import FetchingSandbox, Script, get, gets

from insula.engine import fetched
from insula.engine.failures import StepFailure, Unanswerable
from insula.engine.ports import (
    Activity,
    ChildOutcome,
    ChildRequest,
    Fetch,
    HttpRequest,
    HttpResponse,
    ModelReply,
    ModelRequest,
    ModelToolCall,
    ServiceCall,
)
from insula.kit import json
from insula.testing import (
    RecordedHttp,
    ScriptedChildren,
    ScriptedModels,
    ScriptedSandbox,
    ScriptedServices,
    fake_ports,
)
from insula.workflow_tests.playing import play as played_by
from insula.workflow_tests.recording import record


class World:
    """Answers every request otherwise than the one before."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.asked += 1
        if "refused" in request.url:
            raise StepFailure(f"refused for the {self.asked}. time", "refused")
        return HttpResponse(200, (), f"answer {self.asked}".encode(), request.url)


def at_home(scripts: Mapping[str, Script]) -> FetchingSandbox:
    """A sandbox of these scripts, and loops of two items."""
    return FetchingSandbox(scripts, ScriptedSandbox(lambda s, scope: scope["index"] < 2 and 1))


async def recorded(scripts: Mapping[str, Script], *steps: Any, **ports: Any) -> Played:
    given = {"http": RecordedHttp(World()), **ports}
    return await play(*steps, sandbox=at_home(scripts), **given)


async def again(run: Played, scripts: Mapping[str, Script], *steps: Any) -> Played:
    """Play to a second run what was recorded of the first: another world would be noticed."""
    ports = played_by(record(run.events), fake_ports(None))
    given = {name: getattr(ports, name) for name in ("http", "models", "services", "children")}
    return await play(*steps, sandbox=at_home(scripts), **given)


REQUESTS = st.builds(
    get,
    st.sampled_from(["http://a/", "http://b/", "http://refused/"]),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from([None, "x", "y"]),
)
PROGRAMS = st.lists(
    st.tuples(st.booleans(), st.lists(REQUESTS, min_size=1, max_size=4)), max_size=4
)


def program(groups: list[tuple[bool, list[HttpRequest]]]) -> Script:
    """Make a script that sends groups of requests, each one after another or all at once."""

    async def one(fetch: Fetch, request: HttpRequest) -> str:
        try:
            return (await fetch(request)).body.decode()
        except Unanswerable:
            raise
        except StepFailure as failure:
            return failure.message

    async def script(fetch: Fetch, scope: Mapping[str, Any]) -> list[Any]:
        told: list[Any] = []
        for together, requests in groups:
            if together:
                told.append(await asyncio.gather(*(one(fetch, request) for request in requests)))
            else:
                told.append([await one(fetch, request) for request in requests])
        return told

    return script


@given(groups=PROGRAMS, loop=st.booleans(), fails=st.booleans())
@settings(max_examples=60, deadline=None)
async def test_code_gets_the_same_answers_again(
    groups: list[tuple[bool, list[HttpRequest]]], loop: bool, fails: bool
) -> None:
    ask = program(groups)
    tries: list[int] = []

    async def script(fetch: Fetch, scope: Mapping[str, Any]) -> Any:
        told = await ask(fetch, scope)
        tries.append(1)
        if fails and len(tries) == 1:
            raise StepFailure("once", "script")
        return told

    own = {"loop": "index < 2 && 1"} if loop else {}
    steps = [code("A", code="ask", retry={"max": 1, "backoff": 0}, **own), code("B", code="ask")]
    run = await recorded({"ask": script}, *steps)
    tries.clear()
    second = await again(run, {"ask": script}, *steps)
    assert second.outputs == run.outputs
    # What is recorded of the second run plays as well.
    third = await again(second, {"ask": ask}, *steps)
    assert third.outputs == run.outputs


async def test_a_request_that_was_not_recorded_fails_the_step_and_says_so() -> None:
    run = await recorded({"ask": gets("http://a/1")}, code("A", code="ask"))
    other = await again(run, {"ask": gets("http://a/1?key=geheim")}, code("A", code="ask"))
    (told,) = (step.error or "" for step in other.state.steps.values())
    assert told.startswith("The request GET http://a/1 is not in this test's recording, and")
    assert "input_context" in told
    assert other.ended.code == "not_available"
    once_more = await again(run, {"ask": gets("http://a/1", "http://a/1")}, code("A", code="ask"))
    assert once_more.ended.code == "not_available"


async def test_an_answer_that_was_too_large_is_told_as_such() -> None:
    def large(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), b"x" * (fetched.BODY_MAX + 1), request.url)

    scripts = {"ask": gets("http://a/")}
    run = await recorded(scripts, code("A", code="ask"), http=RecordedHttp(large))
    assert len(record(run.events)) < 500
    second = await again(run, scripts, code("A", code="ask"))
    assert "up to 256 KiB are kept" in (second.ended.error or "")


async def test_what_was_not_awaited_is_not_missed() -> None:
    """Code that gives a request up in favour of a faster one does so again."""

    async def race(fetch: Fetch, scope: Mapping[str, Any]) -> str:
        asking = [asyncio.ensure_future(fetch(get(f"http://{host}/"))) for host in ("slow", "a")]
        done, left = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        for one in left:
            one.cancel()
        return done.pop().result().body.decode()

    async def answer(request: HttpRequest) -> HttpResponse:
        if "slow" in request.url:
            await asyncio.Event().wait()
        return HttpResponse(200, (), b"fast", request.url)

    steps = [code("A", code="race")]
    run = await recorded({"race": race}, *steps, http=RecordedHttp(answer))
    assert (await again(run, {"race": race}, *steps)).outputs == run.outputs == {"A": "fast"}


async def test_handles_of_secrets_differ_and_the_request_is_the_same() -> None:
    def ask(handle: str) -> Script:
        return gets(f"http://a/{handle}")

    run = await recorded({"ask": ask("insulasecret" + "1" * 32)}, code("A", code="ask"))
    second = await again(run, {"ask": ask("insulasecret" + "2" * 32)}, code("A", code="ask"))
    assert second.outputs == run.outputs


async def test_a_loop_that_failed_fails_at_the_same_iteration() -> None:
    async def ask(fetch: Fetch, scope: Mapping[str, Any]) -> str:
        return (
            await fetch(get("http://refused/" if scope["index"] else "http://a/"))
        ).body.decode()

    def answer(request: HttpRequest) -> HttpResponse:
        if "index=1" in request.url:
            raise StepFailure("gone", "dns")
        return HttpResponse(200, (), b"x", request.url)

    loop = {"loop": "index < 2 && 1", "throw_on_error": False}
    of_code = [code("A", code="ask(index)", **loop)]
    run = await recorded({"ask(index)": ask}, *of_code)
    assert run.outputs == {"A": ["answer 1"]}
    second = await again(run, {"ask(index)": ask}, *of_code)
    assert second.outputs == run.outputs
    assert second.state.steps["A"].error == run.state.steps["A"].error == "refused for the 2. time"
    url = "http://a/?index={{index}}"
    of_http = [step("http_request", "W", method="GET", url=url, **loop)]
    run = await recorded({}, *of_http, http=RecordedHttp(answer))
    second = await again(run, {}, *of_http)
    assert second.outputs == run.outputs
    assert second.state.steps["W"].error == run.state.steps["W"].error == "gone"


def replies(*texts: str | tuple[str, Any]) -> ScriptedModels:
    """Answer rounds with texts, or calls of a tool."""
    made = []
    for number, text in enumerate(texts):
        if isinstance(text, str):
            made.append(ModelReply("mock", "m", text))
        else:
            calls = (ModelToolCall(f"c{number}", *text),)
            made.append(ModelReply("mock", "m", "", tool_calls=calls))
    return ScriptedModels(made)


async def test_a_model_in_a_loop_that_failed_fails_in_the_same_round() -> None:
    failing = [ModelReply("mock", "m", "one"), StepFailure("overloaded", "provider")]
    steps = [model("M", more={"loop": "index < 2 && 1", "throw_on_error": False})]
    run = await recorded({}, *steps, models=ScriptedModels(failing))
    second = await again(run, {}, *steps)
    assert second.outputs == run.outputs
    assert [one["message"] for one in run.outputs["M"]] == ["one"]
    assert second.state.steps["M"].error == run.state.steps["M"].error == "overloaded"


async def test_all_that_a_model_calls_is_played() -> None:
    """A request, code that fetches, a service, a child run, and another model with tools."""
    services = ScriptedServices(lambda call: {"deleted": True})
    outcome = ChildOutcome("COMPLETED", json.raw({"status": "COMPLETED", "result": 5}), None)
    children = ScriptedChildren(lambda request: outcome)
    models = replies(
        ("W", {}), ("C", {}), ("S", {}), ("F", {}), ("INNER", {}), ("C", {}), "inside", "done"
    )
    steps = [
        model("M", tools=["W", "C", "S", "F", "INNER"]),
        step("http_request", "W", method="GET", url="http://a/"),
        code("C", code="ask"),
        step("service", "S", service={"type": "FILES", "action": "DELETE_FILE", "input": {}}),
        step("workflow", "F", workflow_id="work_1", input={}),
        model("INNER", tools=["C"]),
    ]
    scripts = {"ask": gets("http://a/1")}
    run = await recorded(scripts, *steps, models=models, services=services, children=children)
    assert run.outputs["M"]["message"] == "done"
    assert (len(services.calls), len(children.requests), len(models.requests)) == (1, 1, 8)
    second = await again(run, scripts, *steps)
    calls = [
        {call.id: (call.key, call.output) for call in one.state.steps["M"].calls.values()}
        for one in (run, second)
    ]
    assert [key for key, _ in calls[0].values()] == ["W", "C", "S", "F", "INNER", "C"]
    assert calls[1] == calls[0]
    assert second.outputs == run.outputs
    # Nobody was told anything.
    assert (len(services.calls), len(children.requests), len(models.requests)) == (1, 1, 8)


async def test_a_model_that_was_called_fails_in_the_same_round() -> None:
    asks = [("INNER", {}), ("C", {})]
    calling = [ModelReply("mock", "m", "", (ModelToolCall("c", *one),)) for one in asks]
    failing = [*calling, StepFailure("overloaded", "provider"), ModelReply("mock", "m", "done")]
    steps = [model("M", tools=["INNER"]), model("INNER", tools=["C"]), code("C", code="ask")]
    scripts = {"ask": gets("http://a/1")}
    run = await recorded(scripts, *steps, models=ScriptedModels(failing))
    second = await again(run, scripts, *steps)
    assert second.outputs == run.outputs
    told = [[c.error for c in one.state.steps["M"].calls.values()] for one in (run, second)]
    assert told[0] == told[1] == ["overloaded", None]


@pytest.mark.parametrize("output", ["text", {"status": 200}, None, [1]])
async def test_an_output_that_is_no_answer_is_not_played(output: Any) -> None:
    """What a run was given in the place of an answer may have any shape."""
    run = await recorded({}, step("http_request", "W", method="GET", url="http://a/"))
    for event in run.events:
        if getattr(event, "output", None) is not None:
            event.output = json.raw(output)
    second = await again(run, {}, step("http_request", "W", method="GET", url="http://a/"))
    assert second.ended.code == "not_available"


@pytest.mark.parametrize("file", ["https://a/x.pdf", {"url": "https://a/x.pdf"}, [{"id": "x"}], 5])
async def test_files_that_are_not_stored_here_are_not_read(file: Any) -> None:
    ports = played_by(b"[]", fake_ports(None))
    with pytest.raises(Unanswerable):
        await ports.files.read("app_1", "text", file, 1_000, Activity("code", 0))


async def test_nothing_of_the_world_is_left_behind_the_ports() -> None:
    world = fake_ports(None)
    ports = played_by(b"[]", replace(world))
    for name in ("http", "models", "services", "children", "files"):
        assert getattr(ports, name) is not getattr(world, name)
    doing = Activity("code", 0)
    call = ServiceCall("app_1", "app_1", "run_1", "FILES", "DELETE_FILE", {})
    child = ChildRequest("run_2", "F", None, "latest", None, json.raw({}))
    asked = ModelRequest("app_1", "mock", "m", [])
    for asking in (
        ports.http.send(get("http://a/"), doing),
        ports.services.call(call, doing),
        ports.children.run(child, doing),
        anext(ports.models.stream(asked, doing)),
    ):
        with pytest.raises(Unanswerable):
            await asking
