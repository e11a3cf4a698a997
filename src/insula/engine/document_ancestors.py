"""Which steps a step can see: those from which a path leads to it, whatever the entry may be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from insula.engine.document_steps import AnyStep, BranchStep, Document, ModelStep, NoteStep
from insula.engine.document_words import Path

_EXTERNAL = "external:"


@dataclass(frozen=True, slots=True)
class Ancestry:
    """The steps by key, and for each the places of those that it sees, one bit each."""

    steps: Mapping[str, AnyStep]
    _places: Mapping[str, int]
    _seen: Mapping[str, int]

    @staticmethod
    def of(document: Document) -> "Ancestry":
        """Follow the edges of a document that has no circles."""
        steps = {step.key: step for step in document.steps}
        places = {key: place for place, key in enumerate(steps)}
        seen = _follow(steps, places)
        _hand_to_tools(steps, seen)
        return Ancestry(steps, places, seen)

    def sees(self, key: str, other: str) -> bool:
        """Say whether one step can see another."""
        return bool(self._seen[key] >> self._places[other] & 1)

    def tools(self, step: AnyStep) -> Iterator[tuple[Path, str]]:
        """Yield the step keys that a model step offers as tools, with their paths."""
        return _tools(step)


def _tools(step: AnyStep) -> Iterator[tuple[Path, str]]:
    if not isinstance(step, ModelStep):
        return
    for index, tool in enumerate(step.provider.tools or ()):
        name = tool if isinstance(tool, str) else tool.name
        if not name.startswith(_EXTERNAL):
            yield ("provider", "tools", str(index)), name


def _targets(step: AnyStep) -> set[str]:
    targets = set(step.destinations)
    if isinstance(step, BranchStep):
        targets.update(step.else_)
        for condition in step.conditions.values():
            targets.update(condition.destinations)
    return targets


def _hand_to_tools(steps: Mapping[str, AnyStep], seen: dict[str, int]) -> None:
    """Let tool steps see what the model steps that call them see, tools of tools included."""
    waiting: list[AnyStep] = [step for step in steps.values() if isinstance(step, ModelStep)]
    while waiting:
        step = waiting.pop()
        for _, key in _tools(step):
            if key in seen and seen[key] | seen[step.key] != seen[key]:
                seen[key] |= seen[step.key]
                waiting.append(steps[key])


def _follow(steps: Mapping[str, AnyStep], places: Mapping[str, int]) -> dict[str, int]:
    """Collect ancestors in topological order."""
    runnable = {key: step for key, step in steps.items() if not isinstance(step, NoteStep)}
    edges = {key: _targets(step) & runnable.keys() for key, step in runnable.items()}
    open_edges = dict.fromkeys(runnable, 0)
    for targets in edges.values():
        for key in targets:
            open_edges[key] += 1
    seen = dict.fromkeys(steps, 0)
    waiting = [key for key, count in open_edges.items() if not count]
    while waiting:
        key = waiting.pop()
        mine = seen[key] | 1 << places[key]
        for target in edges[key]:
            seen[target] |= mine
            open_edges[target] -= 1
            if not open_edges[target]:
                waiting.append(target)
    return seen
