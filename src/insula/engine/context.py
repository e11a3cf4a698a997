"""What a step has in its hands while it runs: scope, units, and the world through ports."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from insula.engine.document import AnyStep
from insula.engine.events import Event, StepReset, UnitEnded, UnitStarted
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    Activity,
    Evaluated,
    Evaluation,
    HttpRequest,
    HttpResponse,
    Limits,
    Ports,
)
from insula.engine.render import Renderer
from insula.engine.scope import Scope
from insula.engine.scripts import analyse
from insula.engine.state import Address, UnitState
from insula.kit.json import Raw

_FALSY = frozenset((b"null", b"false", b"0", b'""'))
_NEVER_RETRIED = frozenset(("limit_output", "limit_logs", "egress", "input", "not_available"))
_LONGEST_BACKOFF = 300.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a unit gave: its output, logs and price."""

    output: Raw
    logs: Raw | None = None
    credits: float = 0.0


@dataclass(slots=True)
class StepContext:
    """One step, or one iteration of it, or one call of it as a tool.

    ``key`` is the step that the events are about: of a tool call, the model step. ``address`` names
    the unit, ``emit`` folds and records an event.
    """

    key: str
    step: AnyStep
    scope: Scope
    ports: Ports
    emit: Callable[[Event], None]
    activity: Activity
    address: Address = (None, None, None)
    requests: int = 0
    """How many requests this unit has made: the last part of their idempotency keys."""
    kinds: "Mapping[str, Callable[[StepContext], Awaitable[Result]]]" = field(default_factory=dict)
    started: Mapping[str, str] = field(default_factory=dict)
    """What the start of this unit's attempts says besides: the tool that is called."""
    nested: bool = False
    """Inside a tool call: what happens here is part of that call, and not journaled by itself."""

    @property
    def limits(self) -> Limits:
        """The step's own limits, none above the installation's."""
        return capped(self.ports.limits, self.step)

    def at(self, address: Address, scope: Scope | None = None) -> "StepContext":
        """Return the same step's context at another of its units."""
        return replace(self, address=address, scope=scope or self.scope, requests=0)

    async def script(
        self, source: str, *, waits: bool = False, condition: bool = False
    ) -> tuple[Raw | None, Raw | None]:
        """Evaluate one script; return its value and its logs."""
        done = await self.scripts((source,), waits=waits, condition=condition)
        return done.outputs[0], done.logs

    async def scripts(
        self, sources: Sequence[str], *, waits: bool = False, condition: bool = False
    ) -> Evaluated:
        """Evaluate scripts one after another in one context."""
        analysed = [analyse(source) for source in sources]
        wanted = frozenset[str]().union(*(script.names for script in analysed))
        v8 = any(script.lane == "v8" for script in analysed)
        evaluation = Evaluation(
            app_id=self.ports.app_id,
            scripts=tuple(sources),
            scope=self.scope.names(wanted),
            absent=self.scope.absent(wanted),
            lane="v8" if v8 else "quickjs",
            waits=waits,
            condition=condition,
            limits=self.limits,
            fetch=self.fetch if waits else None,
        )
        return await self.ports.sandbox.evaluate(evaluation, self.activity)

    def renderer(self) -> Renderer:
        """Return what fills in this step's settings."""

        async def values(sources: Sequence[str]) -> Sequence[Raw | None]:
            return (await self.scripts(sources)).outputs

        return Renderer(self.scope, values)

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send a request; it begins only after everything before it is stored."""
        part = Activity(f"{request.method} {shortened(request.url)}", self.ports.clock())
        self.activity.parts.append(part)
        keyed = replace(request, idempotency_key=self.effect_key())
        await self.ports.recorder.stored()
        response = await self.ports.http.send(keyed, part)
        # Not in a finally: of a request that was cancelled, the receipt still has to tell.
        self.activity.parts.remove(part)
        return response

    def effect_key(self) -> str:
        """Name the next effect of this unit: the same in every attempt at it."""
        self.requests += 1
        index, round_number, call = self.address
        parts = (self.ports.run_id, self.key, index, round_number, call, self.requests)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]

    def timeout(self, default: float) -> float:
        """Seconds that one attempt may take."""
        return default if self.step.timeout is None else self.step.timeout


def capped(limits: Limits, step: AnyStep) -> Limits:
    """Lower the installation's limits to those that the step asks for."""
    own = step.limits
    if own is None:
        return limits if step.timeout is None else _with_wall(limits, step.timeout)
    lowered = Limits(
        cpu=_lower(limits.cpu, own.cpu),
        wall=_lower(limits.wall, own.wall),
        memory=int(_lower(limits.memory, own.memory)),
        output=int(_lower(limits.output, own.output)),
        logs=int(_lower(limits.logs, own.logs)),
    )
    return lowered if step.timeout is None else _with_wall(lowered, step.timeout)


def truthy(value: Raw | None) -> bool:
    """Say whether JavaScript would take a value, ``None`` for ``undefined``, for true."""
    return value is not None and bytes(value) not in _FALSY


def _lower(limit: float, asked: float | None) -> float:
    return limit if asked is None else min(limit, asked)


def _with_wall(limits: Limits, seconds: float) -> Limits:
    return replace(limits, wall=min(limits.wall, seconds))


def shortened(url: str) -> str:
    """Return a URL without what may be secret in it: no user, query or fragment, and not long."""
    scheme, _, rest = url.partition("://")
    bare = rest.split("?")[0].split("#")[0].rpartition("@")[2]
    return f"{scheme}://{bare}"[:200]


async def attempt(
    context: StepContext,
    work: Callable[[], Awaitable[Result]],
    *,
    timeout: float | None,
    begun: bool = False,
    ends: bool = True,
    child: str | None = None,
) -> Result:
    """Try a unit until it has a result, and journal every attempt.

    A unit whose result is stored is not tried again. ``begun``: its first start is stored already
    (with the step's). ``ends``: store its result here, not with the step's end. ``child`` is the id
    of the run that the unit starts.

    Raises:
        StepFailure: it failed, more often than ``retry`` allows, or was interrupted too often.
    """
    unit = _unit(context)
    if unit is not None and unit.ended:
        if unit.error is not None:
            raise StepFailure(unit.error)
        return Result(unit.output or Raw(b"null"))
    number = unit.attempts if unit is not None else 0
    if not begun and unit is not None and unit.open:
        _check_interrupted(context, unit)
    failures = 0
    while True:
        if not begun:
            number += 1
            _start(context, number, child)
        begun = False
        context.requests = 0  # the same effects have the same keys in every attempt
        try:
            result = await _bounded(work, timeout)
        except StepFailure as failure:
            failures += 1
            if not _retried(context.step, failure, failures):
                raise
            _end(context, error=failure.message, logs=failure.logs)
            await _back_off(context.step, failures)
            continue
        if ends:
            _end(context, output=result.output, logs=result.logs, credits=result.credits)
        return result


def _unit(context: StepContext) -> UnitState | None:
    step = context.scope.state.steps.get(context.key)
    return None if step is None else step.units.get(context.address)


def _check_interrupted(context: StepContext, unit: UnitState) -> None:
    times = unit.interrupted + 1
    if context.step.on_interrupt == "fail":
        raise StepFailure(
            "The process died while this step ran, and its on_interrupt is fail: "
            "whether it had an effect is not known",
            "interrupted",
        )
    if times >= context.ports.max_attempts:
        raise StepFailure(f"Interrupted {times} times; it is not tried again", "interrupted")


def _start(context: StepContext, number: int, child: str | None) -> None:
    step = context.scope.state.steps[context.key]
    if step.partial and context.address[2] is None:
        context.emit(StepReset(context.ports.clock(), context.key))
    index, round_number, call = context.address
    context.emit(
        UnitStarted(
            context.ports.clock(),
            context.key,
            number,
            index=index,
            round=round_number,
            call=call,
            child=child,
            tool=context.started.get("tool"),
            tool_type=context.started.get("tool_type"),
        )
    )


def _end(context: StepContext, **told: Any) -> None:
    index, round_number, call = context.address
    context.emit(
        UnitEnded(
            context.ports.clock(),
            context.key,
            index=index,
            round=round_number,
            call=call,
            **told,
        )
    )


async def _bounded(work: Callable[[], Awaitable[Result]], timeout: float | None) -> Result:
    if timeout is None:
        return await work()
    try:
        async with asyncio.timeout(timeout):
            return await work()
    except TimeoutError as error:
        raise StepFailure(f"No result within {timeout:g} s (timeout)", "timeout") from error


def _retried(step: AnyStep, failure: StepFailure, failures: int) -> bool:
    retry = step.retry
    if retry is None or failures > retry.max or failure.code in _NEVER_RETRIED:
        return False
    return retry.on is None or failure.code in retry.on


async def _back_off(step: AnyStep, failures: int) -> None:
    retry = step.retry
    assert retry is not None
    await asyncio.sleep(min(retry.backoff * 2 ** min(failures - 1, 20), _LONGEST_BACKOFF))
