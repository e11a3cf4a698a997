"""*branch*: asks every condition, in ascending order, and says which held."""

from insula.engine.context import Result, StepContext, holds
from insula.engine.document import BranchStep
from insula.kit import json


async def run(context: StepContext) -> Result:
    """Return ``{condition key: bool}``; a condition without a script does not hold."""
    step = context.step
    assert isinstance(step, BranchStep)
    ordered = sorted(step.conditions.items(), key=lambda entry: entry[1].order)
    asked = [(key, c.condition) for key, c in ordered if c.condition and c.condition.strip()]
    held = dict.fromkeys(key for key, _ in ordered)
    logs = None
    if asked:
        sources = [condition for _, condition in asked]
        done = await context.scripts(sources, asked="truth")
        logs = done.logs
        for (key, _), value in zip(asked, done.outputs, strict=True):
            held[key] = holds(value)
    return Result(json.raw({key: bool(value) for key, value in held.items()}), logs)
