"""A step with a ``loop``: its script gives one item after another, the step runs once for each."""

from dataclasses import replace

from insula.engine.attempts import attempt, end_unit, seconds
from insula.engine.context import StepContext
from insula.engine.document import AnyStep
from insula.engine.failures import StepFailure
from insula.kit.json import Raw

JOURNALS_ITSELF = frozenset(("model", "workflow"))
"""Types whose units are not the step or its iterations as a whole."""
_NEVER_LOOPED = frozenset(("input", "branch", "note"))


def loop_of(step: AnyStep) -> str | None:
    """Return a step's loop script, if it has one."""
    loop = step.loop
    return loop if loop and loop.strip() and step.type not in _NEVER_LOOPED else None


async def run_loop(context: StepContext, script: str) -> None:
    """Run one iteration after another; those that are stored already count as run.

    Raises:
        StepFailure: an iteration failed, or there are more items than the limit.
    """
    items = context.scope.state.steps[context.key].items
    while True:
        index = len(items)
        asking = context.at((index, None, None), replace(context.scope, index=index, item=None))
        context.activity.doing = f"{context.step.type} step, loop"
        item = await asking.item(script)
        if item is None:
            return
        if index >= context.ports.max_iterations:
            raise StepFailure(
                f"The loop has more than {context.ports.max_iterations} items, its limit "
                "(INSULA_LOOP_MAX)",
                "limit_iterations",
            )
        await _iterate(asking, item)


async def _iterate(context: StepContext, item: Raw) -> None:
    """Run one iteration; its end is stored before the next item is asked for."""
    inner = context.at(context.address, replace(context.scope, item=item))
    step = inner.step
    inner.activity.doing = f"{step.type} step, iteration {inner.address[0]}"
    inner.activity.since = inner.ports.clock()
    kind = inner.kinds[step.type]
    if step.type in JOURNALS_ITSELF:
        end_unit(inner, await kind(inner))
    else:
        await attempt(inner, lambda: kind(inner), timeout=seconds(step, inner.ports.timeouts))
