"""How a run ends: what was interrupted, what the result is, and the last event."""

from insula.engine.events import FinalStatus, Interruption, RunEnded, StepEnded
from insula.engine.failures import plain
from insula.engine.graph import Plan
from insula.engine.ports import Activity, Ports
from insula.engine.state import RunState, StepState, size_of
from insula.kit.json import Raw

_NO_RESULT = frozenset(("input", "branch", "note"))
_PARTS_SHOWN = 3
_LONGEST = 200

TIMEOUT = "timeout"
"""The code of a run that its deadline ended, and of the steps that it stopped."""
RUN_TIMEOUT = "The run took longer than its timeout"
STORAGE = "storage"
"""The code of a run that was given up because nothing could be stored."""


def cancel_step(state: RunState, ports: Ports, key: str) -> list[Interruption]:
    """End a running step as CANCELLED; return what it, and its children, were doing."""
    step = state.steps[key]
    now = ports.clock()
    activity = ports.activities.pop(key, None)
    interruptions = [_at_rest(step, now) if activity is None else _interruption(key, activity, now)]
    spent = 0.0
    for unit in step.units.values():
        if unit.child is not None:
            interruptions += ports.children.interruptions(unit.child)
            spent += ports.children.credits(unit.child) if unit.open else 0.0
    code = TIMEOUT if ports.stop.kind == "deadline" else None
    output = _stopped_child(state, ports, step)
    event = StepEnded(now, key, "CANCELLED", output=output, code=code, credits=spent)
    ports.recorder.record(event)
    state.apply(event)
    return interruptions


def _stopped_child(state: RunState, ports: Ports, step: StepState) -> Raw | None:
    """Return what the child of a *workflow* step had produced, if the run has room for it. Of a
    loop the list so far is what stands."""
    unit = step.units.get((None, None, None))
    if step.type != "workflow" or step.looped or unit is None or unit.child is None:
        return None
    output = ports.children.output(unit.child)
    return output if state.size + size_of(output) <= ports.max_output else None


def interrupted_before(ports: Ports, key: str) -> list[Interruption]:
    """Say what a step was doing that had not begun: its conditional was being asked."""
    activity = ports.activities.pop(key, None)
    if activity is None or not activity.parts:
        return []
    return [_interruption(key, activity, ports.clock())]


def cancel_open_steps(state: RunState, ports: Ports) -> list[Interruption]:
    """End as CANCELLED what is left running by nobody."""
    left = [step.key for step in state.steps.values() if step.end is None]
    return [told for key in left for told in cancel_step(state, ports, key)]


def end_at_rest(state: RunState, ports: Ports) -> RunEnded:
    """End a run of which nothing executes: stopped before it began, or while nobody owned it.

    Steps that were running when their process died are CANCELLED; whether an attempt of theirs had
    an effect is not known, and the receipt says so.
    """
    told = cancel_open_steps(state, ports)
    if ports.stop.kind == "storage":
        return end_unstored(state, ports, told)
    if ports.stop.kind == "deadline":
        return end(state, ports, "FAILED", error=RUN_TIMEOUT, code=TIMEOUT, interruptions=told)
    return end(state, ports, "CANCELLED", interruptions=told)


def end_unstored(
    state: RunState, ports: Ports, interruptions: list[Interruption] | None = None
) -> RunEnded:
    """End a run as FAILED because nothing of it could be stored for too long."""
    told = [*(interruptions or ()), *cancel_open_steps(state, ports)]
    words = ports.stop.words
    return end(state, ports, "FAILED", error=words, code=STORAGE, interruptions=told)


def completed(plan: Plan, state: RunState, ports: Ports) -> RunEnded:
    """End a run of which every step has been settled."""
    steps = state.steps
    if steps and all(step.status == "SKIPPED" for step in steps.values()):
        return end(state, ports, "SKIPPED")
    return end(state, ports, "COMPLETED", result_key=deciding_step(plan, state))


def deciding_step(plan: Plan, state: RunState) -> str | None:
    """Return the step whose output is the result: the last completed code step, else the last
    completed step that is no input, branch or note."""
    found = None
    for key in reversed(plan.order):
        step = state.steps.get(key)
        if step is None or step.status != "COMPLETED":
            continue
        if step.type == "code":
            return key
        if found is None and step.type not in _NO_RESULT:
            found = key
    return found


def end(
    state: RunState,
    ports: Ports,
    status: FinalStatus,
    *,
    error: str | None = None,
    code: str | None = None,
    result_key: str | None = None,
    interruptions: list[Interruption] | None = None,
) -> RunEnded:
    """Return the last event, folded in; whoever owns the run stores it with the run's status."""
    told = tuple(interruptions or ())
    # A journal of before may give the words of a failure as no database takes them.
    words = None if error is None else plain(error)
    event = RunEnded(ports.clock(), status, result_key, words, code, told)
    state.apply(event)
    return event


def _interruption(key: str, activity: Activity, now: int) -> Interruption:
    since = min((part.since for part in activity.parts), default=activity.since)
    return Interruption(
        key,
        plain(_described(activity), _LONGEST),
        max(0, now - since),
        effect_possible=activity.uncertain,
    )


def _at_rest(step: StepState, now: int) -> Interruption:
    return Interruption(
        step.key,
        f"{step.type} step, when its process died",
        max(0, now - step.start),
        effect_possible=any(unit.open for unit in step.units.values()),
    )


def _described(activity: Activity) -> str:
    """Say what is done in one line: ``model step: tool LOOKUP: GET https://…``."""
    if not activity.parts:
        return activity.doing
    shown = " and ".join(_described(part) for part in activity.parts[:_PARTS_SHOWN])
    more = len(activity.parts) - _PARTS_SHOWN
    return f"{activity.doing}: {shown}" + (f" and {more} more" if more > 0 else "")
