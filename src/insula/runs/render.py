"""A run in the shape of the contract (``RunSchema``), as its viewer may see it."""

from dataclasses import dataclass
from typing import Any

from insula.engine.credits import bounded_price
from insula.engine.display import display_of
from insula.engine.document import Document
from insula.engine.ending import STORAGE, TIMEOUT
from insula.engine.graph import outgoing
from insula.engine.state import RunState, StepState
from insula.engine.view import step_view, usage_view
from insula.kit import json
from insula.kit.clock import iso
from insula.kit.json import Raw
from insula.runs.configured import without
from insula.runs.options import InputPath, options_of
from insula.runs.rows import RunRow
from insula.workflows.resolve import Runnable

HIDDEN_ERROR = "A step failed"
_OWN_CODES = frozenset((TIMEOUT, STORAGE, "internal", "not_available"))
"""Of runs that ended without a step's failure: what they say holds nothing of the workflow."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a viewer may see of a run. ``visible`` are the steps shown where not all are."""

    version: Raw | None
    draft: Raw | None
    visible: frozenset[str] | None = None
    concealed: tuple[InputPath, ...] = ()
    """Where in its input stands what is not shown of it."""

    def sees(self, key: str) -> bool:
        """Say whether a step is shown."""
        return self.visible is None or key in self.visible

    def shown(self, given: Raw) -> Raw:
        """Return the run's input, or an input step's output, as far as it is shown."""
        return without(given, self.concealed) if self.concealed else given


def visible_steps(document: Document) -> frozenset[str]:
    """Return the steps of a closed workflow that its callers see: those without outgoing edges."""
    return frozenset(step.key for step in document.steps if not outgoing(step))


def closed_to(runnable: Runnable, app_id: str) -> frozenset[str] | None:
    """Return the steps that an app sees of a workflow's runs, ``None`` if it sees all."""
    if runnable.open or runnable.workflow_app_id == app_id:
        return None
    return visible_steps(runnable.document)


def run_members(
    row: RunRow, state: RunState, given: Raw | None, sight: Sight, *, verbose: bool = False
) -> dict[str, Any]:
    """Return the members of ``RunSchema``; what is not there and not nullable is left out."""
    erased = row.erased_at is not None and row.is_final and not state.steps
    shown: dict[str, Any] = {
        "id": row.id,
        "result": shown_result(state, sight, verbose=verbose),
        "input": None if given is None else sight.shown(given),
        "output": {} if erased else run_output(state, sight, verbose=verbose),
        "status": row.status,
        "origin": row.origin,
        "started_at": _time(row.started_at),
        "ended_at": _time(row.ended_at),
        "app_id": row.app_id,
        "workflow_app_id": row.workflow_app_id,
        "workflow_id": row.workflow_id,
        "workflow_version_draft": sight.draft,
        "workflow_version": sight.version,
        "usage": usage_of(row, state, sight),
        "retention": None if row.retention is None else Raw(row.retention),
        "retention_due_at": _time(row.retention_due_at),
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }
    if row.version is not None:
        shown["version"] = row.version
    if row.status == "FAILED" and row.error:
        shown["error"] = shown_error(row.error, state, sight)
        if state.code is not None:
            shown["error_code"] = state.code
    for name, value in (("identifier", row.identifier), ("parent_run_id", row.parent_id)):
        if value is not None:
            shown[name] = value
    if row.origin == "TRIGGER" and (trigger := options_of(row).trigger) is not None:
        shown["trigger"] = trigger
    if row.origin == "RECORD" and (rule := options_of(row).rule) is not None:
        shown |= {"collection_id": rule.collection_id, "record_id": rule.record_id}
    if display := display_of(state):
        shown["display"] = display
    if verbose and (row.cancel_requested_at is not None or row.status == "CANCELLED"):
        shown["cancellation"] = _receipt(row, state, sight)
    return shown


def run_bytes(
    row: RunRow, state: RunState, given: Raw | None, sight: Sight, *, verbose: bool = False
) -> bytes:
    """Encode ``RunSchema``."""
    return json.encode(run_members(row, state, given, sight, verbose=verbose))


def run_output(state: RunState, sight: Sight, *, verbose: bool = False) -> dict[str, Any]:
    """Return ``output``: every step that began or was skipped, as far as it is shown."""
    return {
        key: shown_step(step, sight, verbose=verbose)
        for key, step in state.steps.items()
        if sight.sees(key)
    }


def shown_result(state: RunState, sight: Sight, *, verbose: bool = False) -> Any:
    """Return the run's result: some step's output, of which no more is shown here than there."""
    if state.result is None or state.result_key is None:
        return None
    return _shown_output(state.steps[state.result_key].type, state.result, sight, verbose=verbose)


def shown_step(step: StepState, sight: Sight, *, verbose: bool = False) -> dict[str, Any]:
    """Return one step; of a closed workflow without logs and calls."""
    view = step_view(step)
    if sight.visible is not None:
        view.pop("logs", None)
        view.pop("calls", None)
    if "output" in view:
        view["output"] = _shown_output(step.type, view["output"], sight, verbose=verbose)
    return view


def _shown_output(kind: str, output: Raw, sight: Sight, *, verbose: bool) -> Any:
    """Leave out a model's raw answer, which only ``verbose`` shows, and of a closed workflow what
    stands in its child runs' outputs, as if it were its own."""
    if kind == "input":
        return sight.shown(output)
    closed = sight.visible is not None
    if kind == "workflow" and closed:
        change = _without_steps
    elif kind == "model" and (closed or not verbose) and b'"raw":' in bytes(output):
        change = _without_raw
    else:
        return output
    try:
        value = json.decode(output)
    except json.InvalidJson:
        # Too deep to be looked into: what must not be shown of it cannot be taken out.
        return json.NULL if closed else output
    answers = value if isinstance(value, list) else [value]
    # What a test gives as an output need not be an answer: it hides nothing.
    shown = [change(one) if isinstance(one, dict) else one for one in answers]
    return shown if isinstance(value, list) else shown[0]


def _without_steps(answer: dict[str, Any]) -> dict[str, Any]:
    usage = answer.get("usage")
    total = usage.get("total", 0) if isinstance(usage, dict) else 0
    return {**answer, "output": {}, "usage": {"total": total, "steps": {}}}


def _without_raw(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "raw"}


def usage_of(row: RunRow, state: RunState, sight: Sight) -> dict[str, Any]:
    """Return what a run has cost; of an erased run, or of a closed workflow, the total alone."""
    if sight.visible is not None or not state.steps:
        spent = bounded_price(row.credits if row.is_final else state.credits)
        return {"total": round(spent, 9), "steps": {}}
    return usage_view(state)


def shown_error(error: str, state: RunState, sight: Sight) -> str:
    """Return a run's error; of a closed workflow words that say nothing, unless they are those of a
    step that is shown, or only such have failed, or none and the reason is the run's own."""
    if sight.visible is None:
        return error
    failed = [step for step in state.steps.values() if step.status == "FAILED"]
    seen = [step for step in failed if sight.sees(step.key)]
    shown = len(seen) == len(failed) if failed else state.code in _OWN_CODES
    return error if shown or any(step.error == error for step in seen) else HIDDEN_ERROR


def _receipt(row: RunRow, state: RunState, sight: Sight) -> dict[str, Any]:
    """What was asked when, when everything had stopped, and what was interrupted in what."""
    receipt: dict[str, Any] = {
        "requested_by": row.cancel_requested_by,
        "requested_at": _time(row.cancel_requested_at),
        "stopped_at": _time(row.ended_at),
    }
    # A child's interruptions stand here as the run's app may see them; nameless ones are hidden.
    shown = [i for i in state.interruptions if i.key and (sight.visible is None or not i.path)]
    shown = [i for i in shown if i.path or sight.sees(i.key)]
    receipt["interrupted"] = [
        {
            "key": i.key,
            **({"runs": list(i.path)} if i.path else {}),
            # What follows the first colon tells of settings and of calls.
            "doing": i.doing if sight.visible is None else i.doing.partition(":")[0],
            "for_ms": i.for_ms,
            "effect_possible": i.effect_possible,
        }
        for i in shown
    ]
    hidden = len(state.interruptions) - len(shown)
    return receipt | ({"interrupted_hidden": hidden} if hidden else {})


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
