"""Executes a plan: starts what the scheduler decides, records what happens, ends with the run.

The steps of a run are tasks of one task group. Whatever stops the run, another step's failure or a
cancel from outside, reaches every step as a cancelled await; each records its own end.
"""

import asyncio
import logging

from insula.engine.context import Result, StepContext, attempt, truthy
from insula.engine.events import (
    Event,
    FinalStatus,
    Interruption,
    RunEnded,
    RunStarted,
    StepEnded,
    StepSkipped,
    StepStarted,
    UnitEnded,
)
from insula.engine.failures import StepFailure
from insula.engine.graph import Node, Plan
from insula.engine.ports import Activity, Fenced, Ports
from insula.engine.scheduler import Decision, Frontier, resume, settle
from insula.engine.scope import Scope
from insula.engine.state import RunState, StepState
from insula.engine.steps import KINDS
from insula.kit.json import Raw

_log = logging.getLogger(__name__)

_NO_RESULT = frozenset(("input", "branch", "note"))
_ENDS_LOOP = (None, b"null", b"false")


class _RunFailed(Exception):
    """A step failed and its run with it."""


async def execute(
    plan: Plan, state: RunState, ports: Ports, forced: frozenset[str] = frozenset()
) -> RunEnded:
    """Run a plan from whatever its state is to its end.

    The last event is returned, not recorded: whoever owns the run stores it together with the run's
    final status. ``forced`` steps run whatever leads to them.

    Raises:
        Fenced: the run belongs to another process now.
        asyncio.CancelledError: the process is shutting down (``ports.stop``).
    """
    return await _Execution(plan, state, ports).run(forced)


class _Execution:
    def __init__(self, plan: Plan, state: RunState, ports: Ports) -> None:
        self._plan = plan
        self._state = state
        self._ports = ports
        self._frontier = Frontier({})
        self._group: asyncio.TaskGroup | None = None
        self._failure: StepEnded | None = None
        self._interruptions: list[Interruption] = []
        self._output = sum(len(memoryview(s.output)) for s in state.steps.values() if s.output)

    async def run(self, forced: frozenset[str]) -> RunEnded:
        if self._state.started_at is None:
            self._emit(RunStarted(self._ports.clock()))
        try:
            await self._steps(forced)
        except asyncio.CancelledError:
            if self._ports.stop.kind == "shutdown":
                raise
            return self._stopped()
        if self._failure is not None:
            return self._over("FAILED", error=self._failure.error, code=self._failure.code)
        return self._completed()

    async def _steps(self, forced: frozenset[str]) -> None:
        self._failure = self._stored_failure()
        if self._failure is not None:
            return
        self._frontier, decisions = resume(self._plan, self._state, forced)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for key in self._decided(decisions):
                    group.create_task(self._chain(key))
        except* _RunFailed:
            pass  # told in self._failure
        except* Fenced as fenced:
            raise Fenced from fenced

    def _stored_failure(self) -> StepEnded | None:
        """Find the failure of a run that was interrupted between a step's end and its own."""
        for step in self._state.steps.values():
            node = self._plan.nodes.get(step.key)
            if step.status == "FAILED" and node is not None and node.step.throw_on_error:
                return StepEnded(step.end or 0, step.key, "FAILED", None, step.error, step.code)
        return None

    async def _chain(self, key: str) -> None:
        """Run a step and then, in the same task, one of the steps it made ready."""
        waiting = [key]
        while waiting:
            step = await self._step(self._plan.nodes[waiting[0]])
            waiting = self._decided(settle(self._plan, self._frontier, step))
            assert self._group is not None
            for another in waiting[1:]:
                self._group.create_task(self._chain(another))

    def _decided(self, decisions: list[Decision]) -> list[str]:
        for decision in decisions:
            if not decision.run:
                step = self._plan.nodes[decision.key].step
                self._emit(StepSkipped(self._ports.clock(), step.key, step.type))
        return [decision.key for decision in decisions if decision.run]

    async def _step(self, node: Node) -> StepState:
        step = node.step
        resumed = step.key in self._state.steps
        context = self._context(node)
        try:
            if not resumed and not await self._begin(context):
                return self._state.steps[step.key]
            result = await self._work(context, resumed)
            self._end_step(context, result)
        except StepFailure as failure:
            self._fail(context, failure)
        except asyncio.CancelledError:
            self._cancelled(context)
            raise
        except Fenced:
            raise
        except Exception:  # a defect of ours must end in a failed step, not in a stuck run
            _log.exception("step %s of run %s broke", step.key, self._ports.run_id)
            self._fail(
                context, StepFailure("Internal error; the server's log has more", "internal")
            )
        self._ports.activities.pop(step.key, None)
        return self._state.steps[step.key]

    def _context(self, node: Node) -> StepContext:
        step = node.step
        activity = Activity(f"{step.type} step", self._ports.clock())
        self._ports.activities[step.key] = activity
        ports = self._ports
        scope = Scope(self._plan, self._state, step.key, ports.input, ports.variables)
        return StepContext(step.key, step, scope, ports, self._emit, activity, kinds=KINDS)

    async def _begin(self, context: StepContext) -> bool:
        """Ask the conditional, then start or skip the step."""
        step = context.step
        if step.conditional and step.conditional.strip():
            value, _ = await context.script(step.conditional, condition=True)
            if not truthy(value):
                now = self._ports.clock()
                self._emit(StepSkipped(now, step.key, step.type, conditional=True))
                return False
        looped = _loop_of(context) is not None
        single = not looped and step.type not in ("model", "workflow")
        now = self._ports.clock()
        self._emit(StepStarted(now, step.key, step.type, attempt=int(single), looped=looped))
        return True

    async def _work(self, context: StepContext, resumed: bool) -> Result | None:
        kind = KINDS[context.step.type]
        loop = _loop_of(context)
        if loop is not None:
            await self._iterate(context, loop)
            return None
        if context.step.type in ("model", "workflow"):  # these journal units of their own
            return await kind(context)
        seconds = _seconds(context)
        return await attempt(
            context, lambda: kind(context), timeout=seconds, begun=not resumed, ends=False
        )

    async def _iterate(self, context: StepContext, loop: str) -> None:
        """Ask for items and run one iteration after another."""
        key = context.step.key
        while True:
            index = len(self._state.steps[key].items)
            scope = self._loop_scope(context, index, None)
            item, _ = await context.at((None, None, None), scope).script(loop, condition=True)
            if item is None or bytes(item) in _ENDS_LOOP:
                return
            if index >= self._ports.max_iterations:
                raise StepFailure(
                    f"The loop has more than {self._ports.max_iterations} items, its limit "
                    "(INSULA_LOOP_MAX)",
                    "limit_iterations",
                )
            await self._iteration(context, index, item)

    async def _iteration(self, context: StepContext, index: int, item: Raw) -> None:
        scope = self._loop_scope(context, index, item)
        inner = context.at((index, None, None), scope)
        context.activity.doing = f"{context.step.type} step, iteration {index}"
        kind = KINDS[context.step.type]
        if context.step.type in ("model", "workflow"):
            result = await kind(inner)
            self._count_output(result.output)
            now = self._ports.clock()
            ended = UnitEnded(now, context.key, index, output=result.output, credits=result.credits)
            self._emit(ended)
            return
        result = await attempt(inner, lambda: kind(inner), timeout=_seconds(context))
        self._count_output(result.output)

    def _loop_scope(self, context: StepContext, index: int, item: Raw | None) -> Scope:
        ports = self._ports
        return Scope(
            self._plan, self._state, context.key, ports.input, ports.variables, index, item
        )

    def _end_step(self, context: StepContext, result: Result | None) -> None:
        now = self._ports.clock()
        if result is None:
            self._emit(StepEnded(now, context.key, "COMPLETED"))
            return
        self._count_output(result.output)
        self._emit(
            StepEnded(
                now,
                context.key,
                "COMPLETED",
                output=result.output,
                logs=result.logs,
                credits=result.credits,
            )
        )

    def _count_output(self, output: Raw) -> None:
        self._output += len(memoryview(output))
        if self._output > self._ports.max_output:
            raise StepFailure(
                f"The run's output is over {self._ports.max_output} bytes, its limit "
                "(INSULA_RUN_OUTPUT_MAX)",
                "limit_output",
            )

    def _fail(self, context: StepContext, failure: StepFailure) -> None:
        step = context.step
        now = self._ports.clock()
        if step.key not in self._state.steps:  # its conditional failed
            self._emit(StepStarted(now, step.key, step.type))
        ended = StepEnded(
            now,
            step.key,
            "FAILED",
            output=failure.output,
            error=failure.message,
            code=failure.code,
            logs=failure.logs,
            credits=failure.credits,
        )
        self._emit(ended)
        self._ports.activities.pop(step.key, None)
        if step.throw_on_error:
            self._failure = self._failure or ended
            raise _RunFailed

    def _cancelled(self, context: StepContext) -> None:
        """Note what the step was doing, and end it, unless the process is only shutting down."""
        key = context.key
        step = self._state.steps.get(key)
        if self._ports.stop.kind == "shutdown" or step is None or step.end is not None:
            return
        now = self._ports.clock()
        activity = context.activity
        for_ms = max(0, now - activity.since)
        self._interruptions.append(
            Interruption(key, activity.doing, for_ms, effect_possible=activity.uncertain)
        )
        for unit in step.units.values():
            if unit.child is not None:
                self._interruptions += self._ports.children.interruptions(unit.child)
        self._emit(StepEnded(now, key, "CANCELLED"))

    def _stopped(self) -> RunEnded:
        if self._failure is not None:  # it had failed before it was cancelled
            return self._over("FAILED", error=self._failure.error, code=self._failure.code)
        if self._ports.stop.kind == "deadline":
            return self._over(
                "FAILED", error="The run took longer than its timeout", code="timeout"
            )
        return self._over("CANCELLED")

    def _completed(self) -> RunEnded:
        steps = self._state.steps
        if steps and all(step.status == "SKIPPED" for step in steps.values()):
            return self._over("SKIPPED")
        return self._over("COMPLETED", result_key=self._deciding_step())

    def _deciding_step(self) -> str | None:
        completed = [
            step
            for key in reversed(self._plan.order)
            if (step := self._state.steps.get(key)) is not None and step.status == "COMPLETED"
        ]
        for step in completed:
            if step.type == "code":
                return step.key
        return next((s.key for s in completed if s.type not in _NO_RESULT), None)

    def _over(
        self,
        status: FinalStatus,
        error: str | None = None,
        code: str | None = None,
        result_key: str | None = None,
    ) -> RunEnded:
        event = RunEnded(
            self._ports.clock(),
            status,
            result_key=result_key,
            error=error,
            code=code,
            interruptions=tuple(self._interruptions),
        )
        self._state.apply(event)
        return event

    def _emit(self, event: Event) -> None:
        self._ports.recorder.record(event)
        self._state.apply(event)


def _loop_of(context: StepContext) -> str | None:
    loop = context.step.loop
    return loop if loop and loop.strip() else None


def _seconds(context: StepContext) -> float | None:
    """Seconds an attempt may take; the sandbox keeps the time of code itself."""
    step, defaults = context.step, context.ports.timeouts
    if step.type == "http_request":
        return context.timeout(defaults.http_request)
    if step.type == "browser":
        return context.timeout(defaults.browser)
    return None if step.type == "code" else step.timeout


def end_at_rest(state: RunState, ports: Ports) -> RunEnded:
    """End a run of which nothing executes: cancelled before it began, or while nobody owned it.

    Steps that were running when their process died are CANCELLED; whether an attempt of theirs had
    an effect is not known, and the receipt says so.
    """
    now = ports.clock()
    interruptions = []
    for step in list(state.steps.values()):
        if step.end is not None:
            continue
        event = StepEnded(now, step.key, "CANCELLED")
        interruptions.append(
            Interruption(
                step.key,
                f"{step.type} step, when its process died",
                max(0, now - step.start),
                effect_possible=any(unit.open for unit in step.units.values()),
            )
        )
        ports.recorder.record(event)
        state.apply(event)
    ended = RunEnded(now, "CANCELLED", interruptions=tuple(interruptions))
    state.apply(ended)
    return ended
