"""*workflow*: a child run, executed inside its parent's task."""

from collections.abc import Sequence
from typing import Any

from insula.engine.attempts import attempt, seconds, stored_unit
from insula.engine.context import Result, StepContext
from insula.engine.document import WorkflowStep
from insula.engine.failures import StepFailure
from insula.engine.ports import ChildRequest
from insula.engine.template import kind_of
from insula.kit import json
from insula.kit.json import Raw


async def run(context: StepContext) -> Result:
    """Run the child to its end; a child that did not complete fails the step.

    A child whose id is journaled already is gone on with, under the same id: its own journal knows
    what it has done, so an interruption of its parent is no new attempt. A retry is a new child.
    """
    unit = stored_unit(context)
    known = unit.child if unit is not None and unit.open else None
    child = known

    def new_child() -> str:
        nonlocal child
        child = context.ports.new_id("run")
        return child

    async def work() -> Result:
        assert child is not None
        return await _child(context, child)

    return await attempt(
        context,
        work,
        timeout=seconds(context.step, context.ports.timeouts),
        begun=known is not None,
        ends=False,
        child=new_child,
    )


async def _child(context: StepContext, run_id: str) -> Result:
    request = await _request(context, run_id)
    part = context.begin_effect(f"child run {run_id}")
    await context.ports.recorder.stored()
    context.crew.check()
    outcome = await context.ports.children.run(request, part)
    context.end_effect(part)
    if outcome.status in ("COMPLETED", "SKIPPED"):
        return Result(outcome.output, credits=outcome.credits)
    what = outcome.error or f"The child run was {outcome.status.lower()}"
    raise StepFailure(what, "child", output=outcome.output, credits=outcome.credits)


async def _request(context: StepContext, run_id: str) -> ChildRequest:
    step = context.step
    assert isinstance(step, WorkflowStep)
    version = "latest" if step.workflow_version_id is None else step.workflow_version_id
    names = (step.workflow_id, version if isinstance(version, str) else None, step.step_key)
    workflow_id, named, step_key = await _filled(context, names)
    given = await child_input(context, step.input)
    return ChildRequest(
        run_id,
        context.key,
        workflow_id,
        named or version,
        step_key,
        given,
        context.effect_key(),
    )


async def _filled(context: StepContext, names: Sequence[str | None]) -> list[str | None]:
    renderer = context.renderer()
    slots = [None if name is None else renderer.text(name) for name in names]
    await renderer.evaluate()
    return [None if slot is None else renderer.filled_text(slot).strip() for slot in slots]


async def child_input(context: StepContext, given: Any) -> Raw:
    """Fill the child's input in. Called as a tool, the model's arguments are the input."""
    if context.scope.args is not None:
        return context.scope.args
    return await filled_object(context, given, "The child's input")


async def filled_object(context: StepContext, given: Any, what: str) -> Raw:
    """Fill in an object, or a template or JSON text that yields one; nothing gives an empty one.

    Raises:
        StepFailure: it yields something else; names it as ``what``.
    """
    if given is None or given == "":
        return Raw(b"{}")
    renderer = context.renderer()
    tree = renderer.text(given, kind_of(given)) if isinstance(given, str) else renderer.tree(given)
    await renderer.evaluate()
    filled = json.raw(renderer.filled_tree(tree))
    if isinstance(given, str):
        return _object_in(filled, what)
    return filled


def _object_in(value: Raw, what: str) -> Raw:
    """Accept what is JSON text of an object as well as the object."""
    decoded = json.decode(value)
    if isinstance(decoded, str):
        try:
            decoded = json.decode(decoded) if decoded.strip() else {}
        except json.InvalidJson as error:
            raise StepFailure(f"{what} is text but not JSON", "input") from error
    if decoded is None:
        return Raw(b"{}")
    if not isinstance(decoded, dict):
        raise StepFailure(f"{what} must be an object", "input")
    return json.raw(decoded)
