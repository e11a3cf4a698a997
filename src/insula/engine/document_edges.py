"""The edges of a document as it was sent: where they lead, and whether they go in circles."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from insula.engine.document_words import Path, Problem, problem

EDGES_MAX: Final = 50_000
"""Of a whole document: what is walked for every check and every run that is laid out."""
_EXTERNAL: Final = "external:"
_NAMED_MAX: Final = 12

RawStep = Mapping[str, Any]
Edges = dict[str, list[str]]


def destinations(step: RawStep) -> Iterator[tuple[Path, str]]:
    """Yield every destination of a step, with its path in the step; what is no text is left out."""
    yield from _texts(("destinations",), step.get("destinations"))
    if step.get("type") != "branch":
        return
    conditions = step.get("conditions")
    for key, condition in conditions.items() if isinstance(conditions, Mapping) else ():
        if isinstance(condition, Mapping):
            path = ("conditions", str(key), "destinations")
            yield from _texts(path, condition.get("destinations"))
    yield from _texts(("else",), step.get("else"))


def edges_problem(steps: Iterable[object]) -> Problem | None:
    """Refuse more edges than are walked in reasonable time, before any is walked."""
    if sum(_edges(step) for step in steps) <= EDGES_MAX:
        return None
    return problem(("steps",), "too_many", f"have more than {EDGES_MAX} edges; use fewer")


def _edges(step: object) -> int:
    if not isinstance(step, Mapping):
        return 0
    groups = [step.get("destinations")]
    if step.get("type") == "branch":
        conditions = step.get("conditions")
        if isinstance(conditions, Mapping):
            groups += [c.get("destinations") for c in conditions.values() if isinstance(c, Mapping)]
        groups.append(step.get("else"))
    provider = step.get("provider")
    if step.get("type") == "model" and isinstance(provider, Mapping):
        groups.append(provider.get("tools"))
    return sum(len(group) for group in groups if isinstance(group, list))


def tool_references(step: RawStep) -> Iterator[tuple[Path, str]]:
    """Yield the keys of the steps that a model step offers as tools, with their paths."""
    provider = step.get("provider")
    if step.get("type") != "model" or not isinstance(provider, Mapping):
        return
    tools = provider.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        name = tool.get("name") if isinstance(tool, Mapping) else tool
        if isinstance(name, str) and not name.startswith(_EXTERNAL):
            yield ("provider", "tools", str(index)), name


def _texts(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str):
            yield (*path, str(index)), item


def cycle_problems(steps: Sequence[tuple[int, RawStep]]) -> list[Problem]:
    """Name one circle of each knot of steps; notes never run, so none goes through them."""
    runnable = [(place, step) for place, step in steps if step.get("type") != "note"]
    places = {step["key"]: place for place, step in reversed(runnable)}
    edges: Edges = {key: [] for key in reversed(places)}
    for _, step in runnable:
        targets = [key for _, key in destinations(step)] + [key for _, key in tool_references(step)]
        edges[step["key"]] += [key for key in targets if key in edges]
    found = []
    for knot in _knots(edges):
        first = min(knot, key=places.__getitem__)
        path = ("steps", str(places[first]), "destinations")
        names = _circle(edges, first, knot)
        found.append(
            Problem(path, "cycle", f"The steps {_named(names)} go in a circle; cut one edge")
        )
    return sorted(found, key=lambda one: int(one.path[1]))


def _named(names: list[str]) -> str:
    if len(names) > _NAMED_MAX:
        names = [*names[: _NAMED_MAX - 2], "…", names[-1]]
    return " → ".join(names)


def _knots(edges: Edges) -> list[set[str]]:
    """Find the strongly connected parts that hold a circle (Tarjan), without recursion."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    knots: list[set[str]] = []
    for root in edges:
        if root in numbers:
            continue
        walk = [(root, iter(edges[root]))]
        numbers[root] = lowest[root] = len(numbers)
        stack.append(root)
        on_stack.add(root)
        while walk:
            key, targets = walk[-1]
            target = next(targets, None)
            if target is None:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    lowest[above] = min(lowest[above], lowest[key])
                if lowest[key] == numbers[key]:
                    knots += _close(key, stack, on_stack, edges)
            elif target not in numbers:
                numbers[target] = lowest[target] = len(numbers)
                stack.append(target)
                on_stack.add(target)
                walk.append((target, iter(edges[target])))
            elif target in on_stack:
                lowest[key] = min(lowest[key], numbers[target])
    return knots


def _close(key: str, stack: list[str], on_stack: set[str], edges: Edges) -> list[set[str]]:
    part: set[str] = set()
    while key not in part:
        part.add(stack.pop())
    on_stack -= part
    return [part] if len(part) > 1 or key in edges[key] else []


def _circle(edges: Edges, first: str, knot: set[str]) -> list[str]:
    """Return a shortest way from a step back to itself."""
    came_from: dict[str, str] = {}
    waiting = [first]
    for key in waiting:
        for target in edges[key]:
            if target == first:
                return _way(came_from, first, key)
            if target in knot and target not in came_from:
                came_from[target] = key
                waiting.append(target)
    return [first, first]


def _way(came_from: Mapping[str, str], first: str, last: str) -> list[str]:
    names = [first]
    while last != first:
        names.append(last)
        last = came_from[last]
    return [first, *reversed(names)]
