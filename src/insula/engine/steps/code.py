"""*code*: JavaScript whose return value is the output."""

from insula.engine.context import Result, StepContext
from insula.engine.document import CodeStep
from insula.kit.json import NULL


async def run(context: StepContext) -> Result:
    """Evaluate the code; ``undefined`` is ``null``. An empty step gives ``null``."""
    step = context.step
    assert isinstance(step, CodeStep)
    if not step.code.strip():
        return Result(NULL)
    done = await context.scripts((step.code,), waits=True)
    return Result(done.outputs[0] or NULL, done.logs)
