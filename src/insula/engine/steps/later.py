"""*browser*: it is known, and not available yet."""

from insula.engine.context import Result, StepContext
from insula.engine.failures import StepFailure


async def run(context: StepContext) -> Result:
    """Fail and say so.

    Raises:
        StepFailure: always.
    """
    raise StepFailure(f"Steps of type {context.step.type} are not available yet", "not_available")
