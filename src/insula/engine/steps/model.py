"""*model*: rounds of a model and the tools it calls, until it answers.

Every round and every call is a unit of its own in the journal: a run that is resumed goes on with
the conversation as it was stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from insula.engine.context import Result, StepContext, attempt
from insula.engine.document import ModelStep
from insula.engine.events import Chunk, StepReset
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, ModelDelta, ModelReply, ModelRequest
from insula.engine.steps.model_messages import Filled, fill_provider
from insula.engine.steps.model_tools import Toolbox, run_calls
from insula.kit import json
from insula.kit.json import Raw


@dataclass(frozen=True, slots=True)
class Round:
    """One answer of the model, as it is journaled."""

    provider: str
    model: str
    text: str
    tool_calls: tuple[Mapping[str, Any], ...]
    refusal: str | None
    raw: Mapping[str, Any] | None


async def run(context: StepContext) -> Result:
    """Hold the conversation; return ``{provider, model, message, tool_calls?, …}``.

    Raises:
        StepFailure: the provider failed, or after ``max_iterations`` the model still asks for tools.
    """
    step = context.step
    assert isinstance(step, ModelStep)
    filled = await fill_provider(context, step.provider)
    toolbox = Toolbox.of(context, step.provider)
    messages = list(filled.messages)
    credits = 0.0
    for number in range(filled.max_iterations):
        request = _request(context, filled, toolbox, messages)
        answer, price = await _round(context, number, request)
        credits += price
        inner = [call for call in answer.tool_calls if not toolbox.is_external(call["name"])]
        outer = [call for call in answer.tool_calls if toolbox.is_external(call["name"])]
        results = await run_calls(context, toolbox, number, inner)
        if outer or not inner:
            # A round that is journaled carries its own price; here it would count twice.
            price = credits if context.nested else 0.0
            return Result(_output(context, filled, answer, outer, results), credits=price)
        messages.append({"role": "assistant", "content": answer.text, "tools": inner})
        messages.append({"role": "tool", "content": results})
    raise StepFailure(
        f"The model still asks for tools after {filled.max_iterations} rounds (max_iterations)",
        "limit_iterations",
    )


def _request(
    context: StepContext, filled: Filled, toolbox: Toolbox, messages: list[Mapping[str, Any]]
) -> ModelRequest:
    return ModelRequest(
        app_id=context.ports.app_id,
        provider=filled.provider,
        model=filled.model,
        messages=tuple(messages),
        temperature=filled.temperature,
        response_format=filled.response_format,
        max_tokens=filled.max_tokens,
        tools=toolbox.definitions,
        tools_parallel=filled.tools_parallel,
        tools_mode=filled.tools_mode,
        timeout=context.timeout(context.ports.timeouts.model),
        options=filled.options,
    )


async def _round(context: StepContext, number: int, request: ModelRequest) -> tuple[Round, float]:
    index = context.address[0]
    if context.nested:
        result = await _ask(context, request)
    else:
        inner = context.at((index, number, None))
        seconds = request.timeout
        result = await attempt(inner, lambda: _ask(inner, request), timeout=seconds)
    stored = json.decode(result.output)
    return Round(**{**stored, "tool_calls": tuple(stored["tool_calls"])}), result.credits


async def _ask(context: StepContext, request: ModelRequest) -> Result:
    """Ask once and stream the answer; the stored form of the round is the result's output."""
    provider, model = context.ports.models.identify(request.provider, request.model)
    part = Activity(f"model {provider}/{model}", context.ports.clock())
    context.activity.parts.append(part)
    keyed = replace(request, idempotency_key=context.effect_key())
    await context.ports.recorder.stored()
    reply: ModelReply | None = None
    stream = context.ports.models.stream(keyed, part)
    async for piece in stream:
        if isinstance(piece, ModelReply):
            reply = piece
        else:
            _tell(context, piece, provider, model)
    context.activity.parts.remove(part)
    if reply is None:
        raise StepFailure(f"{provider} ended its answer without an end", "provider")
    _check_json(request, reply)
    return Result(json.raw(_stored(reply)), credits=reply.credits)


def _tell(context: StepContext, delta: ModelDelta, provider: str, model: str) -> None:
    if context.nested:
        return
    now = context.ports.clock()
    if delta.restart:
        context.emit(StepReset(now, context.key))
    if delta.text:
        index = context.address[0]
        context.emit(Chunk(now, context.key, provider, model, delta.text, index=index))


def _check_json(request: ModelRequest, reply: ModelReply) -> None:
    if request.response_format != "json" or reply.tool_calls or reply.refusal:
        return
    try:
        json.decode(reply.text)
    except json.InvalidJson as error:
        raise StepFailure(
            f"response_format is json, but {reply.provider} did not answer with JSON: {error}",
            "provider",
        ) from error


def _stored(reply: ModelReply) -> dict[str, Any]:
    calls = [{"id": c.id, "name": c.name, "input": c.input} for c in reply.tool_calls]
    return {
        "provider": reply.provider,
        "model": reply.model,
        "text": reply.text,
        "tool_calls": calls,
        "refusal": reply.refusal,
        "raw": reply.raw,
    }


def _output(
    context: StepContext,
    filled: Filled,
    answer: Round,
    outer: list[Mapping[str, Any]],
    results: list[Mapping[str, Any]],
) -> Raw:
    as_json = filled.response_format == "json" and not outer and answer.refusal is None
    output: dict[str, Any] = {
        "provider": answer.provider,
        "model": answer.model,
        "message": json.decode(answer.text) if as_json else answer.text,
    }
    if outer:
        output["tool_calls"] = [dict(call) for call in outer]
    if outer and results:
        output["tool_results"] = [{k: r[k] for k in ("id", "name", "output")} for r in results]
    if answer.refusal is not None:
        output["refusal"] = answer.refusal
    if context.address[0] is not None:
        output["index"] = context.address[0]
    if answer.raw is not None:
        output["raw"] = dict(answer.raw)
    return json.raw(output)
