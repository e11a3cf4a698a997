"""*model*: rounds of a model and the tools it calls, until it answers.

Every round and every call is a unit of its own in the journal: a run that is resumed goes on with
the conversation as it was stored.
"""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from insula.engine.attempts import attempt
from insula.engine.context import Result, StepContext
from insula.engine.document import ModelStep
from insula.engine.events import Chunk, StepReset
from insula.engine.failures import StepFailure
from insula.engine.ports import ModelDelta, ModelReply, ModelRequest
from insula.engine.steps.model_messages import Filled, fill_provider
from insula.engine.steps.model_tools import Toolbox, run_calls
from insula.kit import json
from insula.kit.json import Raw
from insula.kit.json_bounds import bound, check


@dataclass(frozen=True, slots=True)
class Round:
    """One answer of the model, as it is journaled."""

    provider: str
    model: str
    text: str
    tool_calls: tuple[Mapping[str, Any], ...]
    refusal: str | None
    raw: Mapping[str, Any] | None
    connection_id: str | None = None
    connection_type: str | None = None


async def run(context: StepContext) -> Result:
    """Hold the conversation; return ``{provider, model, message, tool_calls?, …}``.

    Raises:
        StepFailure: the provider failed, or the model still asks for tools after its last round.
    """
    step = context.step
    assert isinstance(step, ModelStep)
    filled = await fill_provider(context, step.provider)
    toolbox = Toolbox.of(context, step.provider)
    return Result(await _converse(context, filled, toolbox))


async def _converse(context: StepContext, filled: Filled, toolbox: Toolbox) -> Raw:
    messages = list(filled.messages)
    for number in range(filled.max_iterations):
        request = _request(context, filled, toolbox, messages, number)
        answer = await _round(context, number, request)
        inner, outer = toolbox.divide(answer.tool_calls)
        if inner and not outer and number + 1 == filled.max_iterations:
            break  # nobody would hear of what they answer
        results = await run_calls(context, toolbox, number, inner)
        if outer or not inner:
            return _output(context, filled, answer, outer, results)
        messages.append({"role": "assistant", "content": answer.text, "tools": inner})
        messages.append({"role": "tool", "content": results})
    raise StepFailure(
        f"The model still asks for tools after {filled.max_iterations} rounds (max_iterations)",
        "limit_iterations",
    )


def _request(
    context: StepContext,
    filled: Filled,
    toolbox: Toolbox,
    messages: list[Mapping[str, Any]],
    number: int,
) -> ModelRequest:
    # A model that must call a tool in every round could never answer.
    mode = "auto" if filled.tools_mode == "required" and number else filled.tools_mode
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
        tools_mode=mode,
        timeout=context.timeout(context.ports.timeouts.model),
        options=filled.options,
        connection_id=filled.connection_id,
    )


async def _round(context: StepContext, number: int, request: ModelRequest) -> Round:
    """Ask, or return what is stored of this round."""
    index, round_number, call = context.address
    if call is None:
        inner = context.at((index, number, None))
    else:  # a round is no call, and what is logged is the call's
        inner = context.at((index, round_number, f"{call}/{number}"))
        inner = replace(inner, tool=None, told=[])
    result = await attempt(inner, lambda: _ask(inner, request), timeout=request.timeout)
    stored = json.decode(result.output)
    return Round(**{**stored, "tool_calls": tuple(stored["tool_calls"])})


async def _ask(context: StepContext, request: ModelRequest) -> Result:
    """Ask once and stream the answer; the stored form of the round is the result's output."""
    models = context.ports.models
    provider, model = models.identify(request.provider, request.model, request.connection_id)
    part = context.begin_effect(f"model {provider}/{model}")
    keyed = replace(request, idempotency_key=context.effect_key())
    await context.ports.recorder.stored()
    context.crew.check()
    reply: ModelReply | None = None
    async with aclosing(models.stream(keyed, part)) as stream:
        async for piece in stream:
            if isinstance(piece, ModelReply):
                reply = piece
            else:
                _tell(context, piece, provider, model)
    context.end_effect(part)
    if reply is None:
        raise StepFailure(f"{provider} ended its answer without an end", "provider")
    return _checked(request, reply)


def _tell(context: StepContext, delta: ModelDelta, provider: str, model: str) -> None:
    if context.address[2] is not None:  # what is said inside of a call is no answer of the step's
        return
    now = context.ports.clock()
    if delta.restart:
        context.emit(StepReset(now, context.key))
    if delta.text:
        index = context.address[0]
        context.emit(Chunk(now, context.key, provider, model, delta.text, index=index))


def _checked(request: ModelRequest, reply: ModelReply) -> Result:
    """Return the round as it is stored.

    Raises:
        StepFailure: ``provider``, what it answered is not JSON where it should be, or more than
            can be shown again.
    """
    try:
        if request.response_format == "json" and not reply.tool_calls and reply.refusal is None:
            check(reply.text.encode("utf-8", "surrogatepass"))
    except json.InvalidJson as error:
        what = "did not answer with JSON (response_format)"
        raise _unusable(reply, what, error) from error
    try:
        for call in reply.tool_calls:
            bound(json.encode(call.input))
        return Result(json.raw(_stored(reply)), credits=reply.credits)
    except json.InvalidJson as error:
        raise _unusable(reply, "gave an answer that cannot be kept", error) from error


def _unusable(reply: ModelReply, what: str, why: Exception) -> StepFailure:
    return StepFailure(f"{reply.provider} {what}: {why}", "provider", credits=reply.credits)


def _stored(reply: ModelReply) -> dict[str, Any]:
    calls = [{"id": c.id, "name": c.name, "input": c.input} for c in reply.tool_calls]
    stored: dict[str, Any] = {
        "provider": reply.provider,
        "model": reply.model,
        "text": reply.text,
        "tool_calls": calls,
        "refusal": reply.refusal,
        "raw": reply.raw,
    }
    if reply.connection_id is not None:
        stored["connection_id"] = reply.connection_id
        stored["connection_type"] = reply.connection_type
    return stored


def _output(
    context: StepContext,
    filled: Filled,
    answer: Round,
    outer: list[Mapping[str, Any]],
    results: list[Mapping[str, Any]],
) -> Raw:
    as_json = filled.response_format == "json" and not answer.tool_calls
    as_json = as_json and answer.refusal is None
    output: dict[str, Any] = {
        "provider": answer.provider,
        "model": answer.model,
        "message": json.decode(answer.text) if as_json else answer.text,
    }
    if answer.connection_id is not None:
        output["connection_id"] = answer.connection_id
        output["connection_type"] = answer.connection_type
    if outer:
        output["tool_calls"] = [dict(call) for call in outer]
    if outer and results:
        output["tool_results"] = [{k: r[k] for k in ("id", "name", "output")} for r in results]
    if answer.refusal is not None:
        output["refusal"] = answer.refusal
    if context.address[0] is not None and context.tool is None:
        output["index"] = context.address[0]
    if answer.raw is not None and context.tool is None:  # a calling model has no use for it
        output["raw"] = dict(answer.raw)
    return json.raw(output)
