"""Executes a plan: starts what the scheduler decides, records what happens, ends with the run.

The steps of a run are tasks of one crew. Whatever stops the run, another step's failure or a cancel
from outside, reaches every step as a cancelled await; each records its own end.
"""

import asyncio
import logging

from insula.engine.attempts import attempt, seconds
from insula.engine.context import Result, StepContext
from insula.engine.crew import Crew
from insula.engine.ending import (
    RUN_TIMEOUT,
    TIMEOUT,
    cancel_open_steps,
    cancel_step,
    completed,
    end,
    end_at_rest,
    end_unstored,
    interrupted_before,
)
from insula.engine.events import (
    Event,
    Interruption,
    RunEnded,
    RunLeft,
    RunStarted,
    StepEnded,
    StepSkipped,
    StepStarted,
    UnitEnded,
)
from insula.engine.failures import StepFailure
from insula.engine.graph import Node, Plan
from insula.engine.loop import JOURNALS_ITSELF, loop_of, run_loop
from insula.engine.ports import Activity, Fenced, Ports
from insula.engine.scheduler import Decision, Frontier, resume, settle, still_open
from insula.engine.scope import Scope
from insula.engine.state import RunState, StepState, size_of
from insula.engine.steps import KINDS
from insula.kit.tasks import cancels

_log = logging.getLogger(__name__)
_DEFECT = "Internal error; the server's log has more"

__all__ = ["end_at_rest", "execute"]


async def execute(
    plan: Plan, state: RunState, ports: Ports, forced: frozenset[str] = frozenset()
) -> RunEnded:
    """Run a plan from whatever its state is to its end.

    The last event is returned, not recorded: whoever owns the run stores it together with the run's
    final status. ``forced`` steps run whatever leads to them. A cancel of this task by
    ``ports.stop`` is answered with the run's end; the task's ``cancelling()`` still tells of it.

    Raises:
        Fenced: the run belongs to another process now.
        asyncio.CancelledError: the process is shutting down; what is recorded stands.
    """
    return await _Execution(plan, state, ports).run(forced)


class _Execution:
    def __init__(self, plan: Plan, state: RunState, ports: Ports) -> None:
        self._plan = plan
        self._state = state
        self._ports = ports
        self._crew = Crew(self._interrupted)
        self._frontier = Frontier({})
        self._failure: tuple[str | None, str | None] | None = None
        """Message and code of what ended the run."""
        self._fenced = False
        self._unasked = False
        self._interruptions: list[Interruption] = []

    async def run(self, forced: frozenset[str]) -> RunEnded:
        if self._state.started_at is None:
            self._emit(RunStarted(self._ports.clock()))
        stopped = self._was_stopping()
        if not stopped:
            self._frontier, decisions = resume(self._plan, self._state, forced)
            for key in self._decided(decisions):
                self._crew.start(self._chain(key))
            await self._crew.finish()
            self._check_errors()
            if self._crew.cancelled and self._ports.stop.kind in (None, "shutdown"):
                if not self._unasked:
                    self._emit(RunLeft(self._ports.clock()))
                raise asyncio.CancelledError
        if stopped or self._crew.stopping:
            return self._stopped()
        return completed(self._plan, self._state, self._ports)

    def _was_stopping(self) -> bool:
        """Say whether the process died while this run was being stopped: nothing begins again."""
        stopping = False
        for step in self._state.steps.values():
            node = self._plan.nodes.get(step.key)
            if step.status == "FAILED" and node is not None and node.step.throw_on_error:
                self._failure = (step.error, step.code)
            stopping = stopping or step.status == "CANCELLED"
        return stopping or self._failure is not None

    def _interrupted(self) -> None:
        """Take a cancel that nobody asked for as what it is: the process is going down, and not in
        good order."""
        self._unasked = self._ports.stop.kind is None
        self._ports.stop.kind = self._ports.stop.kind or "shutdown"

    def _check_errors(self) -> None:
        """Raise what says that the run is lost; any other error outside of a step is our defect."""
        for error in self._crew.errors:
            if isinstance(error, Fenced):
                raise error
            _log.error("run %s broke", self._ports.run_id, exc_info=error)
            if self._failure is None:
                self._failure = (_DEFECT, "internal")

    async def _chain(self, key: str) -> None:
        """Run a step and then, in the same task, one of the steps it made ready."""
        waiting = [key]
        while waiting and not self._crew.stopping:
            step = await self._step(self._plan.nodes[waiting[0]])
            if step is None:
                return
            decided = settle(self._plan, self._frontier, step)
            waiting = self._decided(still_open(self._plan, self._state, self._frontier, decided))
            for another in waiting[1:]:
                self._crew.start(self._chain(another))

    def _decided(self, decisions: list[Decision]) -> list[str]:
        for decision in decisions:
            if not decision.run:
                step = self._plan.nodes[decision.key].step
                self._emit(StepSkipped(self._ports.clock(), step.key, step.type))
        return [decision.key for decision in decisions if decision.run]

    async def _step(self, node: Node) -> StepState | None:
        """Run a step to its end; return nothing if the run is being stopped by then."""
        context = self._context(node)
        key = context.key
        try:
            if key in self._state.steps:
                await self._work(context, begun=False)
            elif await self._begin(context):
                await self._work(context, begun=True)
        except StepFailure as failure:
            self._failed(context, failure)
        except asyncio.CancelledError:
            if self._crew.stopping or cancels():
                self._cancelled(key)
                raise
            self._failed(context, StepFailure("The step was stopped from within", "internal"))
        except Fenced:
            self._fenced = True
            # What else runs goes on elsewhere, or here once it is found: it is not cancelled.
            self._ports.stop.kind = self._ports.stop.kind or "shutdown"
            raise
        except Exception:  # a defect of ours must end in a failed step, not in a stuck run
            _log.exception("step %s of run %s broke", key, self._ports.run_id)
            self._failed(context, StepFailure(_DEFECT, "internal"))
        self._ports.activities.pop(key, None)
        return None if self._crew.stopping else self._state.steps[key]

    def _context(self, node: Node) -> StepContext:
        step, ports = node.step, self._ports
        activity = Activity(f"{step.type} step", ports.clock())
        ports.activities[step.key] = activity
        scope = Scope(self._plan, self._state, step.key, ports.input, ports.variables)
        return StepContext(
            step.key, step, scope, ports, self._crew, self._emit, activity, kinds=KINDS
        )

    async def _begin(self, context: StepContext) -> bool:
        """Ask the conditional, then start or skip the step."""
        step = context.step
        if step.conditional and step.conditional.strip():
            doing = context.activity.doing
            context.activity.doing = f"{doing}, conditional"
            holds = await context.condition(step.conditional)
            context.activity.doing = doing  # not in a finally: a receipt still has to tell
            self._crew.check()
            if not holds:
                logs = context.all_logs(None)
                now = self._ports.clock()
                self._emit(StepSkipped(now, step.key, step.type, conditional=True, logs=logs))
                return False
        looped = loop_of(step) is not None
        single = not looped and step.type not in JOURNALS_ITSELF
        now = self._ports.clock()
        self._emit(StepStarted(now, step.key, step.type, attempt=int(single), looped=looped))
        return True

    async def _work(self, context: StepContext, *, begun: bool) -> None:
        step = context.step
        loop = loop_of(step)
        if loop is not None:
            await run_loop(context, loop)
            self._emit(
                StepEnded(self._ports.clock(), step.key, "COMPLETED", logs=context.all_logs(None))
            )
            return
        kind = KINDS[step.type]
        if step.type in JOURNALS_ITSELF:
            result = await kind(context)
        else:
            result = await attempt(
                context,
                lambda: kind(context),
                timeout=seconds(step, self._ports.timeouts),
                begun=begun,
                ends=False,
            )
        self._completed(context, result)

    def _completed(self, context: StepContext, result: Result) -> None:
        logs = context.all_logs(result.logs)
        now = self._ports.clock()
        self._emit(
            StepEnded(
                now,
                context.key,
                "COMPLETED",
                output=result.output,
                logs=logs,
                credits=result.credits,
                fetched=result.fetched,
            )
        )

    def _failed(self, context: StepContext, failure: StepFailure) -> None:
        """Record a failure; unless the run goes on after it, it is the end of everything else."""
        step = context.step
        if self._crew.stopping:  # a step that is being stopped does not fail
            self._cancelled(step.key)
            return
        now = self._ports.clock()
        if step.key not in self._state.steps:  # its conditional failed
            self._emit(StepStarted(now, step.key, step.type))
        looped = self._state.steps[step.key].looped  # then its list so far is its output
        ended = StepEnded(
            now,
            step.key,
            "FAILED",
            output=None if looped else failure.output,
            error=failure.message,
            code=failure.code,
            logs=context.all_logs(failure.logs),
            credits=failure.credits,
            fetched=failure.fetched,
        )
        try:
            self._emit(ended)
        except StepFailure:  # what it carries is too large itself
            ended.output = ended.logs = ended.fetched = None
            self._emit(ended)
        if step.throw_on_error:
            self._failure = (failure.message, failure.code)
            self._crew.stop()

    def _cancelled(self, key: str) -> None:
        """Note what a running step was doing, and end it, unless the process only shuts down."""
        step = self._state.steps.get(key)
        stop = self._ports.stop
        silent = self._fenced or stop.kind == "shutdown"
        silent = silent or (stop.kind is None and self._crew.cancelled)
        if step is None and not silent:  # it has no entry, but its conditional was being asked
            self._interruptions += interrupted_before(self._ports, key)
        elif step is not None and step.end is None and not silent:
            self._interruptions += cancel_step(self._state, self._ports, key)
        self._ports.activities.pop(key, None)

    def _stopped(self) -> RunEnded:
        """End a run that was stopped: by a step's failure if there was one, else from outside."""
        state, ports = self._state, self._ports
        self._interruptions += cancel_open_steps(state, ports)
        told = self._interruptions
        if self._failure is not None:
            error, code = self._failure
            return end(state, ports, "FAILED", error=error, code=code, interruptions=told)
        if ports.stop.kind == "storage":
            return end_unstored(state, ports, told)
        if self._timed_out():
            return end(state, ports, "FAILED", error=RUN_TIMEOUT, code=TIMEOUT, interruptions=told)
        return end(state, ports, "CANCELLED", interruptions=told)

    def _timed_out(self) -> bool:
        if self._crew.cancelled:
            return self._ports.stop.kind == "deadline"
        steps = self._state.steps.values()
        return any(step.status == "CANCELLED" and step.code == TIMEOUT for step in steps)

    def _emit(self, event: Event) -> None:
        """Record an event and fold it in.

        Raises:
            StepFailure: it carries more than the run may have, or what cannot be stored; with what
                the event would have told of the cost, which was paid all the same.
        """
        if type(event) is StepEnded or type(event) is UnitEnded:
            try:
                self._check_output(event)
                self._ports.recorder.record(event)
            except StepFailure as failure:
                failure.credits += event.credits
                raise
        else:
            self._ports.recorder.record(event)
        self._state.apply(event)

    def _check_output(self, event: StepEnded | UnitEnded) -> None:
        size = self._state.size + size_of(event.output) + size_of(event.logs)
        if size > self._ports.max_output and (event.output or event.logs):
            raise StepFailure(
                f"The run's output is over {self._ports.max_output} bytes, its limit "
                "(INSULA_RUN_OUTPUT_MAX)",
                "limit_output",
            )
