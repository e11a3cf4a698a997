"""What every model provider owes, over ``mock`` and over a real server on the loopback."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pytest

from insula.adapters.http.egress import EgressPolicy
from insula.adapters.models.providers import ModelProviders
from insula.adapters.models.rehearsal import RehearsalServer, Scene, rehearsal
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    Activity,
    ModelDelta,
    ModelReply,
    ModelRequest,
    ModelToolCall,
    ToolDefinition,
)

_ASKED: list[Mapping[str, Any]] = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Play:
    """One answer, in words that every provider can be made to follow."""

    pieces: tuple[str, ...] = ("Hel", "lo,", " wö", "rld")
    calls: tuple[tuple[str, str, Any], ...] = ()
    status: int = 200
    message: str = ""
    fails_after: int | None = None
    silent: bool = False
    stalls_after: int | None = None
    refusal: str | None = None


class Stage(Protocol):
    """A provider under test."""

    models: ModelProviders

    def request(self, *plays: Play) -> ModelRequest: ...

    @property
    def open_connections(self) -> int: ...


@dataclass
class MockStage:
    models: ModelProviders
    open_connections: int = 0

    def request(self, *plays: Play) -> ModelRequest:
        replies = [self._reply(play) for play in plays]
        return ModelRequest("app_1", "mock", "m", _ASKED, options={"mock": {"replies": replies}})

    @staticmethod
    def _reply(play: Play) -> dict[str, Any]:
        reply: dict[str, Any] = {"text": "".join(play.pieces), "tokens": len(play.pieces)}
        reply["tool_calls"] = [{"id": i, "name": n, "input": v} for i, n, v in play.calls]
        if play.status != 200:
            reply["error"] = {"status": play.status, "message": play.message}
        if play.fails_after is not None:
            reply["error"] = {"after_tokens": play.fails_after}
        if play.silent:
            reply["delay_ms"] = 3_600_000
        if play.stalls_after is not None:
            reply["token_delay_ms"] = 3_600_000
        if play.refusal is not None:
            reply["refusal"] = play.refusal
        return reply


@dataclass
class ServedStage:
    models: ModelProviders
    server: RehearsalServer
    name: str = "served"
    plays: list[Play] = field(default_factory=list)

    @property
    def open_connections(self) -> int:
        return sum(pool.open_connections for pool in self.models._pools)

    def request(self, *plays: Play) -> ModelRequest:
        self.server.scenes = [self._scene(play) for play in plays]
        return ModelRequest("app_1", self.name, "m", _ASKED)

    @staticmethod
    def _scene(play: Play) -> Scene:
        scene = Scene(pieces=play.pieces, refusal=play.refusal)
        if play.calls:
            encoded = tuple((i, n, str(v).replace("'", '"')) for i, n, v in play.calls)
            scene = replace(scene, tool_calls=encoded)
        if play.status != 200:
            error = {"error": {"message": play.message, "type": "x", "code": None}}
            scene = replace(scene, status=play.status, error=error)
        return replace(
            scene,
            cut_after=play.fails_after,
            delay=3600 if play.silent else 0,
            stall_after=play.stalls_after,
        )


@pytest.fixture(params=["mock", "served", "openai"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with rehearsal() as server:
        name = request.param.upper()
        environ = {f"INSULA_PROVIDER_{name}_URL": server.url, f"INSULA_PROVIDER_{name}_KEY": "sk-1"}
        if request.param == "mock":
            environ = {}
        models = ModelProviders(EgressPolicy(), environ)
        if request.param == "mock":
            yield MockStage(models)
        else:
            yield ServedStage(models, server, request.param)
        await models.close()


async def _all(stage: Stage, request: ModelRequest) -> tuple[list[str], ModelReply]:
    events = [event async for event in stage.models.stream(request, Activity("x", 0))]
    *deltas, reply = events
    assert isinstance(reply, ModelReply)
    texts = [delta.text for delta in deltas if isinstance(delta, ModelDelta)]
    assert len(texts) == len(deltas)
    return texts, reply


async def _failure(stage: Stage, request: ModelRequest) -> tuple[StepFailure, list[str]]:
    texts: list[str] = []

    async def consume() -> None:
        async for event in stage.models.stream(request, Activity("x", 0)):
            assert isinstance(event, ModelDelta)
            texts.append(event.text)

    with pytest.raises(StepFailure) as caught:
        await consume()
    return caught.value, texts


async def test_deltas_then_one_reply_that_is_their_sum(stage: Stage) -> None:
    request = stage.request(Play())
    texts, reply = await _all(stage, request)
    assert texts == ["Hel", "lo,", " wö", "rld"]
    assert (reply.text, reply.tool_calls, reply.refusal) == ("Hello, wörld", (), None)
    assert (reply.provider, reply.model) == (request.provider, "m")
    assert reply.credits >= 0
    assert isinstance(reply.raw, dict)


async def test_tool_calls_come_with_their_arguments_as_values(stage: Stage) -> None:
    request = stage.request(Play((), (("c1", "find", {"q": "a b"}), ("c2", "sum", {"n": [1, 2]}))))
    tools = tuple(ToolDefinition(n, "", {"type": "object"}) for n in ("find", "sum"))
    texts, reply = await _all(stage, replace(request, tools=tools))
    assert texts == []
    assert reply.tool_calls == (
        ModelToolCall("c1", "find", {"q": "a b"}),
        ModelToolCall("c2", "sum", {"n": [1, 2]}),
    )


async def test_text_and_tool_calls_together(stage: Stage) -> None:
    tools = (ToolDefinition("find", "", {"type": "object"}),)
    request = stage.request(Play(("I look",), (("c1", "find", {"q": "a"}),)))
    texts, reply = await _all(stage, replace(request, tools=tools))
    assert (texts, reply.text, len(reply.tool_calls)) == (["I look"], "I look", 1)


async def test_a_refusal_is_told(stage: Stage) -> None:
    _, reply = await _all(stage, stage.request(Play((), refusal="I will not")))
    assert reply.refusal == "I will not"


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "rate_limited"), (500, "provider"), (400, "provider"), (401, "provider")],
)
async def test_error_statuses(stage: Stage, status: int, code: str) -> None:
    request = stage.request(Play(status=status, message="because so"))
    failure, texts = await _failure(stage, request)
    assert (failure.code, texts) == (code, [])
    assert str(status) in failure.message
    assert "because so" in failure.message


async def test_a_stream_that_breaks_is_a_failure_after_its_deltas(stage: Stage) -> None:
    failure, texts = await _failure(stage, stage.request(Play(fails_after=2)))
    assert failure.code in ("network", "provider")
    assert texts == ["Hel", "lo,"]
    assert stage.open_connections == 0


async def test_a_silent_provider_runs_into_the_deadline(stage: Stage) -> None:
    request = replace(stage.request(Play(silent=True)), timeout=0.1)
    if not isinstance(stage, MockStage):
        await stage.models._provider(request.provider)  # the deadline is not for loading
    failure, texts = await _failure(stage, request)
    assert (failure.code, texts) == ("timeout", [])
    assert stage.open_connections == 0


async def test_a_stream_that_stalls_runs_into_the_deadline(stage: Stage) -> None:
    request = replace(stage.request(Play(stalls_after=1)), timeout=0.1)
    if not isinstance(stage, MockStage):
        await stage.models._provider(request.provider)
    failure, texts = await _failure(stage, request)
    assert (failure.code, texts) == ("timeout", ["Hel"])
    assert stage.open_connections == 0


@pytest.mark.parametrize("play", [Play(silent=True), Play(stalls_after=1)])
async def test_cancelling_comes_out_with_everything_closed(stage: Stage, play: Play) -> None:
    begun = asyncio.Event()
    request = stage.request(play)

    async def consume() -> None:
        async for _ in stage.models.stream(request, Activity("x", 0)):
            begun.set()

    task = asyncio.create_task(consume())
    if isinstance(stage, ServedStage):
        await stage.server.arrived.wait()
    if not play.silent:
        await begun.wait()
    else:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.open_connections == 0
    if isinstance(stage, ServedStage):
        await stage.server.left.wait()
        assert len(stage.server.bodies) == 1


async def test_a_consumer_that_stops_early_leaves_nothing_open(stage: Stage) -> None:
    async with aclosing(
        stage.models.stream(stage.request(Play(stalls_after=1)), Activity("x", 0))
    ) as stream:
        async for _ in stream:
            break
    assert stage.open_connections == 0


async def test_the_deadline_never_strikes_the_consumer(stage: Stage) -> None:
    """Time that the consumer takes between deltas counts, but is not cut short by a cancel."""
    request = replace(stage.request(Play()), timeout=0.2)
    if not isinstance(stage, MockStage):
        await stage.models._provider(request.provider)
    rested = 0

    async def consume() -> None:
        nonlocal rested
        async for _ in stage.models.stream(request, Activity("x", 0)):
            await asyncio.sleep(0.25)  # longer than the deadline, and not interrupted
            rested += 1

    with pytest.raises(StepFailure, match="did not answer completely"):
        await consume()
    assert rested == 1


async def test_rounds_follow_the_conversation(stage: Stage) -> None:
    first = stage.request(Play(("one",)), Play(("two",)))
    assert (await _all(stage, first))[1].text == "one"
    messages = [*_ASKED, {"role": "assistant", "content": "one"}, *_ASKED]
    assert (await _all(stage, replace(first, messages=messages)))[1].text == "two"


@pytest.mark.parametrize("name", ["anthropic", "google", "azure", "no such", "../x"])
async def test_a_provider_that_is_not_configured_says_how(stage: Stage, name: str) -> None:
    request = replace(stage.request(Play()), provider=name)
    failure, _ = await _failure(stage, request)
    assert failure.code == "provider"
    assert "INSULA_PROVIDER_" in failure.message
    with pytest.raises(StepFailure, match="INSULA_PROVIDER_"):
        stage.models.identify(name, "m")
