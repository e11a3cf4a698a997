"""*code*: JavaScript whose return value is the output."""

from insula.engine.context import Result, StepContext
from insula.engine.document import CodeStep
from insula.engine.failures import StepFailure
from insula.engine.fetched import Fetches
from insula.kit.json import NULL


async def run(context: StepContext) -> Result:
    """Evaluate the code; ``undefined`` is ``null``. An empty step gives ``null``."""
    step = context.step
    assert isinstance(step, CodeStep)
    if not step.code.strip():
        return Result(NULL)
    fetches = Fetches(context.scope.state, context.key)
    try:
        done = await context.scripts((step.code,), fetch=fetches.through(context.fetch))
    except StepFailure as failure:
        failure.fetched = fetches.taken()
        raise
    return Result(done.outputs[0] or NULL, done.logs, fetched=fetches.taken())
