"""The tools of a *model* step: what the model is told of them, and running them."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from insula.engine.attempts import (
    attempt,
    end_failed,
    end_unit,
    seconds,
    start_unit,
    stored_result,
    stored_unit,
)
from insula.engine.context import Result, StepContext
from insula.engine.document import AnyStep, ModelProvider, ModelStep, ModelTool
from insula.engine.failures import StepFailure, plain
from insula.engine.graph import EXTERNAL
from insula.engine.inputs import json_schema
from insula.engine.ports import Fenced, ToolDefinition
from insula.engine.state import Address
from insula.kit import json
from insula.kit.json import Raw

_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ANYTHING: Mapping[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of one model step; names are as the model knows them."""

    definitions: tuple[ToolDefinition, ...]
    steps: frozenset[str]
    external: frozenset[str]

    @staticmethod
    def of(context: StepContext, provider: ModelProvider) -> "Toolbox":
        """Read the step's ``tools``: step keys, ``external:NAME``, or objects that say more."""
        definitions: dict[str, ToolDefinition] = {}
        external: set[str] = set()
        for tool in provider.tools or []:
            told = ModelTool(name=tool) if isinstance(tool, str) else tool
            name = told.name.removeprefix(EXTERNAL)
            if told.name.startswith(EXTERNAL):
                external.add(name)
            definitions.setdefault(name, _definition(name, told, context.scope.plan.tools))
        steps = frozenset(definitions) - external
        return Toolbox(tuple(definitions.values()), steps, frozenset(external))

    def divide(
        self, calls: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """Divide calls into those that steps answer and those that the caller answers."""
        inner = [call for call in calls if call["name"] not in self.external]
        outer = [call for call in calls if call["name"] in self.external]
        return inner, outer


def _definition(name: str, tool: ModelTool, steps: Mapping[str, AnyStep]) -> ToolDefinition:
    step = None if tool.name.startswith(EXTERNAL) else steps.get(name)
    said = (step.model_extra or {}).get("description") if step is not None else None
    described = tool.description or (said if isinstance(said, str) else "") or f"Runs {name}"
    schema = _ANYTHING if tool.input is None else json_schema(tool.input)
    return ToolDefinition(name, described, schema)


async def run_calls(
    context: StepContext, toolbox: Toolbox, number: int, calls: list[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Run the calls of a round, at once if the step allows; return their results for the model."""
    step = context.step
    assert isinstance(step, ModelStep)
    named = _named(number, calls)
    if len(named) < 2 or step.provider.tools_parallel is False:
        return [await _call(context, toolbox, number, i, call) for i, call in named]
    return await _together(context, toolbox, number, named)


async def _together(
    context: StepContext, toolbox: Toolbox, number: int, named: list[tuple[str, Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_call(context, toolbox, number, i, call)) for i, call in named
            ]
    except* Fenced as fenced:
        raise Fenced from fenced
    return [task.result() for task in tasks]


def _named(number: int, calls: list[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Pair calls with ids that name them in the journal, whatever ids the model made up."""
    seen: set[str] = set()
    named = []
    for place, call in enumerate(calls):
        given = str(call["id"])
        # No id that is taken as it is can hold the sign that ours begin with.
        ours = given if _PLAIN_ID.fullmatch(given) and given not in seen else f"#{number}.{place}"
        seen.add(ours)
        named.append((ours, call))
    return named


async def _call(
    context: StepContext, toolbox: Toolbox, number: int, call_id: str, call: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Run one call; its failure is an answer to the model, not the step's."""
    try:
        tool = _tool_context(context, toolbox, number, call_id, call)
        output = json.decode(await _run(context, tool))
    except StepFailure as failure:
        context.crew.check()  # a call that is being stopped does not fail
        output = {"error": failure.message}
    return {"type": "tool_result", "id": call["id"], "name": call["name"], "output": output}


def _tool_context(
    context: StepContext, toolbox: Toolbox, number: int, call_id: str, call: Mapping[str, Any]
) -> StepContext:
    name = str(call["name"])
    step = context.scope.plan.tools.get(name) if name in toolbox.steps else None
    if step is None:
        raise StepFailure(f"There is no tool {plain(name, 200)!r}", "input")
    if not isinstance(call["input"], dict):
        raise StepFailure(f"The arguments of {name} must be an object", "input")
    index, outer_round, outer = context.address
    address: Address = (index, number, call_id)
    if outer is not None:
        address = (index, outer_round, f"{outer}/{number}/{call_id}")
    return replace(
        context,
        step=step,
        scope=replace(context.scope, args=json.raw(call["input"])),
        address=address,
        activity=context.begin_effect(f"tool {name}"),
        tool=name,
        effects=Counter(),
        told=[],
    )


async def _run(context: StepContext, tool: StepContext) -> Raw:
    """Run a call, or return what is stored of it."""
    try:
        await _check_conditional(tool)
        unit = stored_unit(tool)
        if unit is not None and unit.ended:
            result = stored_result(unit)
        else:
            result = await _as_unit(tool)
    except StepFailure:
        context.crew.check()  # of what is being stopped, the receipt still has to tell
        context.end_effect(tool.activity)
        raise
    context.end_effect(tool.activity)
    return result.output


async def _check_conditional(tool: StepContext) -> None:
    """Ask a tool's conditional, which may look at ``args``; a call that has begun was let through.

    Raises:
        StepFailure: it does not hold; nothing was executed, and there is no entry of it.
    """
    conditional = tool.step.conditional
    if not conditional or not conditional.strip() or stored_unit(tool) is not None:
        return
    if not await tool.condition(conditional):
        raise StepFailure(f"{tool.tool} was not run: its conditional does not hold", "input")


async def _as_unit(tool: StepContext) -> Result:
    """Run a call as a unit of its own in the journal, an entry of the step's ``calls``."""
    try:
        result = await _executed(tool)
        end_unit(tool, result)
    except StepFailure as failure:
        tool.crew.check()
        end_failed(tool, failure, again=False)
        raise StepFailure(failure.message, failure.code) from failure
    return result


async def _executed(tool: StepContext) -> Result:
    kind = tool.kinds[tool.step.type]
    if tool.step.type == "workflow":
        return await kind(tool)  # journals its attempts with their children
    if tool.step.type == "model":
        # Its rounds and calls are attempted each by itself; all that are stored stand.
        if stored_unit(tool) is None:
            start_unit(tool)
        return await kind(tool)
    timeout = seconds(tool.step, tool.ports.timeouts)
    return await attempt(tool, lambda: kind(tool), timeout=timeout, ends=False)
