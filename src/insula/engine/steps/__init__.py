"""One file a step type: each turns a step's context into a result, or fails."""

from collections.abc import Awaitable, Callable
from typing import Final

from insula.engine.context import Result, StepContext
from insula.engine.steps import branch, code, http_request, input_, later, model, service, workflow

KINDS: Final[dict[str, Callable[[StepContext], Awaitable[Result]]]] = {
    "input": input_.run,
    "branch": branch.run,
    "code": code.run,
    "http_request": http_request.run,
    "model": model.run,
    "workflow": workflow.run,
    "browser": later.run,
    "service": service.run,
}
"""Every type that runs; notes never do."""
