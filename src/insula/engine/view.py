"""A step and its calls in the shape of the contract (``RunStepOutputSchema``)."""

from typing import Any

from insula.engine.state import CallState, RunState, StepState


def step_view(step: StepState) -> dict[str, Any]:
    """Return ``{status, type, key, output?, logs?, calls?, start, end?, error?, attempts?}``."""
    view: dict[str, Any] = {
        "status": step.status,
        "type": step.type,
        "key": step.key,
        "start": step.start,
    }
    output = step.produced()
    logs = step.all_logs()
    if output is not None:
        view["output"] = output
    if logs is not None:
        view["logs"] = logs
    if step.calls:
        view["calls"] = [call_view(call) for call in step.calls.values()]
    if step.end is not None:
        view["end"] = step.end
    if step.error is not None and step.status in ("FAILED", "CANCELLED"):
        view["error"] = step.error
    if step.attempts > 1:
        view["attempts"] = step.attempts
    return view


def call_view(call: CallState) -> dict[str, Any]:
    """Return one entry of ``calls``."""
    view: dict[str, Any] = {
        "id": call.id,
        "status": call.status,
        "key": call.key,
        "type": call.type,
        "start": call.start,
    }
    optional = {
        "index": call.index,
        "output": call.output,
        "logs": call.logs,
        "end": call.end,
        "error": call.error,
    }
    return view | {name: value for name, value in optional.items() if value is not None}


def usage_view(state: RunState) -> dict[str, Any]:
    """Return ``{total, steps}`` in credits; of the steps, those that cost anything."""
    steps = {
        key: _step_usage(step) for key, step in state.steps.items() if step.credits or step.calls
    }
    return {"total": round(state.credits, 9), "steps": steps}


def _step_usage(step: StepState) -> dict[str, Any]:
    usage: dict[str, Any] = {"total": round(step.credits, 9)}
    if step.calls:
        usage["calls"] = [
            {"id": call.id, "total": round(call.credits, 9)} for call in step.calls.values()
        ]
    return usage
