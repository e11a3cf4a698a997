"""*workflow*: a child run, executed inside its parent's task."""

from typing import Any

from insula.engine.context import Result, StepContext, attempt
from insula.engine.document import WorkflowStep
from insula.engine.failures import StepFailure
from insula.engine.ports import ChildRequest
from insula.kit import json
from insula.kit.json import Raw


async def run(context: StepContext) -> Result:
    """Run the child to its end; a child that did not complete fails the step.

    A child whose id is journaled already is gone on with, under the same id: its own journal knows
    what it has done, so an interruption of its parent is no new attempt.
    """
    known = _stored_child(context)
    if known is not None:
        return await _child(context, known)
    run_id = context.ports.new_id("run")
    return await attempt(
        context,
        lambda: _child(context, run_id),
        timeout=context.step.timeout,
        ends=False,
        child=run_id,
    )


def _stored_child(context: StepContext) -> str | None:
    step = context.scope.state.steps.get(context.key)
    unit = None if step is None else step.units.get(context.address)
    return unit.child if unit is not None and unit.open else None


async def _child(context: StepContext, run_id: str) -> Result:
    step = context.step
    assert isinstance(step, WorkflowStep)
    given = await child_input(context, step.input)
    version = "latest" if step.workflow_version_id is None else step.workflow_version_id
    request = ChildRequest(run_id, context.key, step.workflow_id, version, step.step_key, given)
    context.activity.doing = f"child run {run_id}"
    await context.ports.recorder.stored()
    outcome = await context.ports.children.run(request, context.activity)
    if outcome.status in ("COMPLETED", "SKIPPED"):
        return Result(outcome.output, credits=outcome.credits)
    what = outcome.error or f"The child run was {outcome.status.lower()}"
    raise StepFailure(what, "child", output=outcome.output, credits=outcome.credits)


async def child_input(context: StepContext, given: Any) -> Raw:
    """Fill the child's input in. Called as a tool, the model's arguments are the input."""
    if context.scope.args is not None:
        return context.scope.args
    if given is None or given == "":
        return Raw(b"{}")
    renderer = context.renderer()
    tree = renderer.tree(given)
    await renderer.evaluate()
    filled = json.raw(renderer.filled_tree(tree))
    if isinstance(given, str):
        return _object_in(filled)
    return filled


def _object_in(value: Raw) -> Raw:
    """Accept an input that is JSON text of an object as well as the object."""
    decoded = json.decode(value)
    if isinstance(decoded, str):
        try:
            decoded = json.decode(decoded) if decoded.strip() else {}
        except json.InvalidJson as error:
            raise StepFailure("The child's input is text but not JSON", "input") from error
    if decoded is None:
        return Raw(b"{}")
    if not isinstance(decoded, dict):
        raise StepFailure("The child's input must be an object", "input")
    return json.raw(decoded)
