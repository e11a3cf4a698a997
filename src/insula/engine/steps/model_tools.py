"""The tools of a *model* step: what the model is told of them, and running them."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from insula.engine.context import Result, StepContext, attempt
from insula.engine.document import ModelProvider
from insula.engine.events import UnitEnded
from insula.engine.failures import StepFailure
from insula.engine.graph import EXTERNAL
from insula.engine.inputs import json_schema
from insula.engine.ports import Activity, Fenced, ToolDefinition
from insula.kit import json

_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ANYTHING: Mapping[str, Any] = {"type": "object", "additionalProperties": True}


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of one model step; names are as the model knows them."""

    definitions: tuple[ToolDefinition, ...]
    external: frozenset[str]

    @staticmethod
    def of(context: StepContext, provider: ModelProvider) -> "Toolbox":
        """Read the step's ``tools``: step keys, ``external:NAME``, or objects that say more."""
        definitions, external = [], set()
        for tool in provider.tools or []:
            named = tool if isinstance(tool, str) else tool.name
            name = named.removeprefix(EXTERNAL)
            if named.startswith(EXTERNAL):
                external.add(name)
            step = context.scope.plan.tools.get(name)
            about = "" if isinstance(tool, str) else tool.description or ""
            described = about or str(
                (step.model_extra or {}).get("description", "") if step else ""
            )
            definition = None if isinstance(tool, str) else tool.input
            schema = _ANYTHING if definition is None else json_schema(definition)
            definitions.append(ToolDefinition(name, described or f"Runs {name}", schema))
        return Toolbox(tuple(definitions), frozenset(external))

    def is_external(self, name: str) -> bool:
        """Say whether the caller runs this tool, not a step."""
        return name in self.external


async def run_calls(
    context: StepContext, toolbox: Toolbox, number: int, calls: list[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Run the calls of a round, at once if the step allows; return their results for the model."""
    provider = getattr(context.step, "provider", None)
    named = _named(number, calls)
    if provider is not None and provider.tools_parallel is False:
        return [await _call(context, toolbox, number, i, call) for i, call in named]
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
        ours = given if _PLAIN_ID.fullmatch(given) and given not in seen else f"{number}.{place}"
        seen.add(ours)
        named.append((ours, call))
    return named


async def _call(
    context: StepContext, toolbox: Toolbox, number: int, call_id: str, call: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Run one call; its failure is an answer to the model, not the step's."""
    try:
        output: Any = (await _journaled(context, toolbox, number, call_id, call)).output
    except StepFailure as failure:
        output = {"error": failure.message}
    return {"type": "tool_result", "id": call["id"], "name": call["name"], "output": output}


async def _journaled(
    context: StepContext, toolbox: Toolbox, number: int, call_id: str, call: Mapping[str, Any]
) -> Result:
    tool = _tool_context(context, number, call_id, call)
    if context.nested and tool.step.type != "workflow":  # a child's id must be journaled always
        return await _run_tool(tool)
    unit = context.scope.state.steps[context.key].units.get(tool.address)
    if unit is not None and unit.ended:
        return await attempt(tool, lambda: _run_tool(tool), timeout=None)
    logs, error, output, price = None, None, None, 0.0
    try:
        result = await _attempted(tool)
        context.activity.parts.remove(tool.activity)
        output, logs, price = result.output, result.logs, result.credits
        return result
    except StepFailure as failure:
        error, logs = failure.message, failure.logs
        raise
    finally:
        if output is not None or error is not None:  # neither: the call was cancelled
            now = context.ports.clock()
            index = context.address[0]
            _, _, address = tool.address
            told = UnitEnded(
                now, context.key, index, number, address, output, error, logs, credits=price
            )
            context.emit(told)


async def _attempted(tool: StepContext) -> Result:
    if tool.step.type == "workflow":  # it journals its attempts itself, with its child's id
        return await _run_tool(tool)
    seconds = tool.step.timeout
    return await attempt(tool, lambda: _run_tool(tool), timeout=seconds, ends=False)


def _tool_context(
    context: StepContext, number: int, call_id: str, call: Mapping[str, Any]
) -> StepContext:
    name = str(call["name"])
    step = context.scope.plan.tools.get(name)
    if step is None:
        raise StepFailure(f"There is no tool {name!r}", "input")
    if not isinstance(call["input"], dict):
        raise StepFailure(f"The arguments of {name} must be an object", "input")
    args = json.raw(call["input"])
    outer = context.address[2]
    address = (context.address[0], number, call_id if outer is None else f"{outer}/{call_id}")
    activity = Activity(f"tool {name}", context.ports.clock())
    context.activity.parts.append(activity)
    return replace(
        context,
        step=step,
        scope=replace(context.scope, args=args, index=None, item=None),
        address=address,
        activity=activity,
        started={"tool": name, "tool_type": step.type},
        nested=True,
        requests=0,
    )


async def _run_tool(tool: StepContext) -> Result:
    kind = tool.kinds[tool.step.type]
    return await kind(tool)
