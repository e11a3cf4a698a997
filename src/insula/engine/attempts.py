"""Trying a unit until it has a result: timeout, retry, and what an interruption leaves behind.

Every attempt is journaled with its start and its end; a unit whose result stands is never tried
again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from insula.engine.context import Result, StepContext
from insula.engine.document import AnyStep, Retry
from insula.engine.events import StepReset, UnitEnded, UnitStarted
from insula.engine.failures import StepFailure, timed_out
from insula.engine.ports import Timeouts
from insula.engine.state import UnitState
from insula.kit.json import NULL, Raw

Work = Callable[[], Awaitable[Result]]

_NEVER_RETRIED = frozenset(
    (
        "limit_output",
        "limit_logs",
        "limit_iterations",
        "limit_settings",
        "egress",
        "input",
        "not_available",
    )
)
_LONGEST_BACKOFF = 300.0


async def attempt(
    context: StepContext,
    work: Work,
    *,
    timeout: float | None,
    begun: bool = False,
    ends: bool = True,
    child: Callable[[], str] | None = None,
) -> Result:
    """Try a unit until it has a result, and journal every attempt.

    ``begun``: its first start is stored already. ``ends``: store its result here, not with what it
    is a part of. ``child`` makes the id of the run that an attempt starts.

    Raises:
        StepFailure: it failed, more often than ``retry`` allows, or was interrupted too often.
    """
    unit = stored_unit(context)
    if unit is not None and unit.ended:
        return stored_result(unit)
    if unit is not None and unit.open and not begun:
        _check_interrupted(context, unit)
    number, failures = (0, 0) if unit is None else (unit.attempts, unit.failed)
    while True:
        if not begun:
            number += 1
            start_unit(context, number, None if child is None else child())
        begun = False
        context.begin_attempt()
        try:
            done = await bounded(work, timeout, partial(_spent_below, context))
            result = _priced(context, done)
        except StepFailure as failure:
            context.crew.check()  # nothing is tried again in a run that is stopping
            failures += 1
            if not is_retried(context.step, failure, failures):
                raise
            end_failed(context, failure, again=True)
            await _back_off(context, failures)
            continue
        if ends:
            end_unit(context, result)
        return result


def _priced(context: StepContext, result: Result) -> Result:
    """Add to a result what the installation charges for one of its step's type."""
    price = context.ports.prices.get(context.step.type, 0.0)
    return replace(result, credits=result.credits + price) if price else result


def stored_unit(context: StepContext) -> UnitState | None:
    """Return what the journal knows of this unit."""
    step = context.scope.state.steps.get(context.key)
    return None if step is None else step.units.get(context.address)


def stored_result(unit: UnitState) -> Result:
    """Return the result of a unit that has ended; what it cost is told already.

    Raises:
        StepFailure: it failed for good.
    """
    if unit.error is not None:
        raise StepFailure(unit.error)
    return Result(unit.output or NULL)


def start_unit(context: StepContext, number: int = 1, child: str | None = None) -> None:
    """Journal that an attempt at a unit begins."""
    index, round_number, call = context.address
    if call is None and context.scope.state.steps[context.key].partial:
        context.emit(StepReset(context.ports.clock(), context.key))
    context.emit(
        UnitStarted(
            context.ports.clock(),
            context.key,
            number,
            index=index,
            round=round_number,
            call=call,
            child=child,
            tool=context.tool,
            tool_type=None if context.tool is None else context.step.type,
        )
    )


def end_unit(context: StepContext, result: Result) -> None:
    """Journal a unit's result."""
    _end(
        context,
        output=result.output,
        logs=result.logs,
        price=result.credits,
        fetched=result.fetched,
    )


def end_failed(context: StepContext, failure: StepFailure, *, again: bool) -> None:
    """Journal that an attempt failed."""
    error, price = failure.message, failure.credits
    fetched = None if again else failure.fetched  # of several attempts, what the last one got
    try:
        _end(context, error=error, logs=failure.logs, price=price, again=again, fetched=fetched)
    except StepFailure:  # its logs are too large
        _end(context, error=error, price=price, again=again)


async def bounded(work: Work, timeout: float | None, spent: Callable[[], float]) -> Result:
    """Await the work, for so many seconds; ``spent`` says what it has cost that was stopped then.

    Raises:
        StepFailure: ``timeout``, or what the work raises.
    """
    if timeout is None:
        return await work()
    try:
        async with asyncio.timeout(timeout) as clock:
            return await work()
    except TimeoutError as error:
        if not clock.expired():  # a port's own, which should have been a failure
            raise
        raise timed_out(timeout, credits=spent()) from error


def _spent_below(context: StepContext) -> float:
    """Return what the child of this attempt has cost; its outcome does not arrive to tell."""
    unit = stored_unit(context)
    child = None if unit is None else unit.child
    return 0.0 if child is None else context.ports.children.credits(child)


def seconds(step: AnyStep, defaults: Timeouts) -> float | None:
    """Return how long one attempt may take. The sandbox keeps the time of code itself; a model's
    rounds each have their own."""
    match step.type:
        case "http_request":
            return defaults.http_request if step.timeout is None else step.timeout
        case "browser":
            return defaults.browser if step.timeout is None else step.timeout
        case "service":
            return defaults.service if step.timeout is None else step.timeout
        case "code" | "model":
            return None
    return step.timeout


def is_retried(step: AnyStep, failure: StepFailure, failures: int) -> bool:
    """Say whether there is another attempt after so many failed ones."""
    retry = step.retry
    if retry is None or failures > retry.max or failure.code in _NEVER_RETRIED:
        return False
    return retry.on is None or failure.code in retry.on


def delay(retry: Retry, failures: int) -> float:
    """Return the seconds before the next attempt: doubled each time, five minutes at most."""
    return min(retry.backoff * 2.0 ** min(failures - 1, 20), _LONGEST_BACKOFF)


def _check_interrupted(context: StepContext, unit: UnitState) -> None:
    times = unit.interrupted + (not unit.left)
    if context.step.on_interrupt == "fail":
        raise StepFailure(
            "The process ended while this step ran, and its on_interrupt is fail: "
            "whether it had an effect is not known",
            "interrupted",
        )
    if times >= context.ports.max_attempts:
        raise StepFailure(f"Interrupted {times} times; it is not tried again", "interrupted")


def _end(
    context: StepContext,
    output: Raw | None = None,
    error: str | None = None,
    logs: Raw | None = None,
    price: float = 0.0,
    *,
    again: bool = False,
    fetched: Raw | None = None,
) -> None:
    index, round_number, call = context.address
    context.emit(
        UnitEnded(
            context.ports.clock(),
            context.key,
            index=index,
            round=round_number,
            call=call,
            output=output,
            error=error,
            logs=context.all_logs(logs),
            credits=price,
            again=again,
            fetched=fetched,
        )
    )


async def _back_off(context: StepContext, failures: int) -> None:
    assert context.step.retry is not None
    context.activity.parts.clear()
    context.activity.doing, doing = "waiting to try again", context.activity.doing
    seconds = delay(context.step.retry, failures) if context.ports.backs_off else 0.0
    await asyncio.sleep(seconds)
    context.activity.doing = doing  # not in a finally: a receipt still has to tell
