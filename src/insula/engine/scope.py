"""What a script or a template of a step can see: the run's input, and the step's ancestors."""

from collections.abc import Iterable
from dataclasses import dataclass

from insula.engine.graph import Plan
from insula.engine.state import RunState, StepState, output_is_object
from insula.kit import json
from insula.kit.json import Raw

VARIABLE_NAMES = ("variables", "env", "secrets")


@dataclass(frozen=True, slots=True)
class Scope:
    """The view from one step. ``seen_from`` is the step whose ancestors count.

    A tool step sees what the model step that calls it sees, and its ``args``. ``item`` and
    ``index`` are there in a loop only: in a looped model step for its tools, too.
    """

    plan: Plan
    state: RunState
    seen_from: str
    input: Raw
    variables: Raw
    index: int | None = None
    item: Raw | None = None
    args: Raw | None = None

    def lookup(self, name: str) -> Raw | None:
        """Return the JSON text of a name, or ``None`` if the step cannot see such a thing."""
        if name == "input":
            return self.input
        if name in VARIABLE_NAMES:
            return self.variables
        if name == "index":
            return None if self.index is None else json.raw(self.index)
        if name == "item":
            return self.item
        if name == "args":
            return self.args
        step = self.state.steps.get(name)
        if step is None or not self._sees(name):
            return None
        return as_seen(step)

    def names(self, wanted: Iterable[str]) -> tuple[dict[str, Raw], tuple[str, ...]]:
        """Return those of the names that are in scope with their values, and the absent ones.

        Absent are steps of the document that did not run, or cannot be seen from here.
        """
        found: dict[str, Raw] = {}
        absent: list[str] = []
        for name in wanted:
            value = self.lookup(name)
            if value is not None:
                found[name] = value
            elif name in self.plan.keys:
                absent.append(name)
        return found, tuple(sorted(absent))

    def _sees(self, name: str) -> bool:
        step = self.state.steps[name]
        ran = step.end is not None and step.status != "SKIPPED"
        if name not in self.plan.nodes:  # given to the run before it began
            return ran
        return ran and self.plan.is_ancestor(name, self.seen_from)


def as_seen(step: StepState) -> Raw:
    """Return ``{status, output, error?, logs?}``; an input step's values stand beside these."""
    if step.shown is None:
        step.shown = _shown(step)
    return step.shown


def _shown(step: StepState) -> Raw:
    output = json.NULL if step.output is None else step.output
    parts: dict[str, object] = {"status": step.status}
    if step.error is not None:
        parts["error"] = step.error
    logs = step.all_logs()
    if logs is not None:
        parts["logs"] = logs
    if step.type == "input" and output_is_object(output):
        parts.update(json.members(output))
    parts["output"] = output
    return json.raw(parts)
