"""*code*: JavaScript whose return value is the output."""

from insula.engine.context import Result, StepContext
from insula.kit.json import NULL


async def run(context: StepContext) -> Result:
    """Evaluate the code; ``undefined`` is ``null``. An empty step gives ``null``."""
    source = getattr(context.step, "code", "")
    if not source.strip():
        return Result(NULL)
    value, logs = await context.script(source, waits=True)
    return Result(NULL if value is None else value, logs)
