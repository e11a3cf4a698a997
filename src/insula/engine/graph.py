"""The part of a document that one run executes: its entries, edges, order, tools and ancestors.

``plan`` is pure and costs time in proportion to steps and edges; plans are immutable and shared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from insula.engine.document import (
    AnyStep,
    BranchStep,
    Document,
    InputStep,
    ModelStep,
    NoteStep,
)
from insula.errors import BadInput, FieldError

ORDINARY = ""
"""The group of a step's ordinary destinations."""
ELSE = "else"
"""The group of a branch's ``else``."""
EXTERNAL = "external:"
"""Tools that the caller runs, not a step."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A destination, and the group that makes it live: ORDINARY, ELSE or a condition's."""

    target: str
    group: str = ORDINARY


@dataclass(frozen=True, slots=True)
class Node:
    """A reachable step. ``ancestors`` is a set of places, one bit each; ``incoming`` counts edges.

    An entry has one more incoming edge, from the run, that is live from the start.
    """

    step: AnyStep
    place: int
    distance: int
    ancestors: int
    incoming: int
    edges: tuple[Edge, ...]
    entry: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run executes. ``order`` is by distance from the entry, then place in the document.

    ``tools`` maps the keys of steps that model steps call to the steps.
    """

    nodes: Mapping[str, Node]
    order: tuple[str, ...]
    entries: tuple[str, ...]
    tools: Mapping[str, AnyStep]
    keys: frozenset[str] = field(default_factory=frozenset)
    """Every step key of the document, reachable or not."""
    may_repeat: bool = True
    """Whether every step may be begun again where it is not known that it was begun."""

    def is_ancestor(self, ancestor: str, of: str) -> bool:
        """Say whether a path of reachable steps leads from one step to the other."""
        node = self.nodes.get(ancestor)
        return node is not None and bool(self.nodes[of].ancestors >> node.place & 1)

    def downstream(self, key: str) -> frozenset[str]:
        """Return the step and every step that it is an ancestor of."""
        return frozenset(k for k in self.order if k == key or self.is_ancestor(key, k))


def tool_keys(step: AnyStep) -> tuple[str, ...]:
    """Return the keys of the steps that a model step offers as tools, in order."""
    if not isinstance(step, ModelStep):
        return ()
    names = [t if isinstance(t, str) else t.name for t in step.provider.tools or []]
    return tuple(n for n in names if not n.startswith(EXTERNAL))


def condition_group(key: str) -> str:
    """Return the group of a condition's destinations; no key can make it ORDINARY or ELSE."""
    return f"?{key}"


def outgoing(step: AnyStep) -> tuple[Edge, ...]:
    """Return the edges that leave a step, each destination once a group."""
    groups: list[tuple[str, list[str]]] = [(ORDINARY, step.destinations)]
    if isinstance(step, BranchStep):
        groups += [(condition_group(k), c.destinations) for k, c in step.conditions.items()]
        groups.append((ELSE, step.else_ or []))
    return tuple(Edge(t, group) for group, targets in groups for t in dict.fromkeys(targets))


def plan(document: Document, from_step_key: str | None = None) -> Plan:
    """Lay out what a run of this document executes.

    Raises:
        BadInput: ``from_step_key`` is unknown, a note, or a step that only serves as a tool.
    """
    steps = {s.key: s for s in document.steps}
    runnable = {k: s for k, s in steps.items() if not isinstance(s, NoteStep)}
    edges = {k: tuple(e for e in outgoing(s) if e.target in runnable) for k, s in runnable.items()}
    tools = {t: runnable[t] for s in document.steps for t in tool_keys(s) if t in runnable}
    entries = _entries(document, runnable, edges, tools, from_step_key)
    reachable = _reachable(entries, edges)
    places = {s.key: i for i, s in enumerate(document.steps)}
    incoming, distance, ancestors = _walk(entries, reachable, edges, places)
    nodes = {
        key: Node(
            step=runnable[key],
            place=places[key],
            distance=distance[key],
            ancestors=ancestors[key],
            incoming=incoming[key],
            edges=edges[key],
            entry=key in entries,
        )
        for key in reachable
    }
    order = tuple(sorted(nodes, key=lambda k: (distance[k], places[k])))
    may_repeat = all(step.on_interrupt == "retry" for step in runnable.values())
    return Plan(nodes, order, tuple(entries), tools, frozenset(steps), may_repeat)


def check_start(document: Document, key: str, field_name: str) -> None:
    """Refuse a step that no run can start from.

    Raises:
        BadInput: it is unknown, a note, or only a tool.
    """
    step = next((s for s in document.steps if s.key == key), None)
    if step is None:
        reason = "names no step of this version; name one of its steps"
    elif isinstance(step, NoteStep):
        reason = "names a note; notes never run, name another step"
    elif _serves_only_as_tool(document, step):
        reason = "names a step that only serves as a tool of a model step; name another step"
    else:
        return
    message = f"{field_name} {reason}"
    raise BadInput(message, [FieldError((field_name,), "invalid_step", message)])


def _serves_only_as_tool(document: Document, step: AnyStep) -> bool:
    if step.input_connected or not any(step.key in tool_keys(s) for s in document.steps):
        return False
    first = next((s for s in document.steps if isinstance(s, InputStep)), None)
    sources = [s for s in document.steps if not isinstance(s, NoteStep)]
    return step is not first and not any(
        edge.target == step.key for source in sources for edge in outgoing(source)
    )


def _entries(
    document: Document,
    runnable: Mapping[str, AnyStep],
    edges: Mapping[str, tuple[Edge, ...]],
    tools: Mapping[str, AnyStep],
    from_step_key: str | None,
) -> list[str]:
    if from_step_key is not None:
        check_start(document, from_step_key, "from_step_key")
        return [from_step_key]
    first = next((k for k, s in runnable.items() if isinstance(s, InputStep)), None)
    entries = [k for k, s in runnable.items() if k == first or s.input_connected]
    if entries:
        return entries
    targets = {e.target for out in edges.values() for e in out}
    return [k for k in runnable if k not in targets and k not in tools]


def _reachable(entries: Iterable[str], edges: Mapping[str, tuple[Edge, ...]]) -> set[str]:
    seen = set(entries)
    waiting = list(seen)
    while waiting:
        for edge in edges[waiting.pop()]:
            if edge.target not in seen:
                seen.add(edge.target)
                waiting.append(edge.target)
    return seen


def _walk(
    entries: Iterable[str],
    reachable: set[str],
    edges: Mapping[str, tuple[Edge, ...]],
    places: Mapping[str, int],
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Count incoming edges, and in topological order find distances and ancestors."""
    incoming = dict.fromkeys(reachable, 0)
    for key in reachable:
        for edge in edges[key]:
            incoming[edge.target] += 1
    open_edges = dict(incoming)
    for key in entries:
        incoming[key] += 1
    distance = dict.fromkeys(reachable, 0)
    ancestors = dict.fromkeys(reachable, 0)
    waiting = [k for k in reachable if open_edges[k] == 0]
    while waiting:
        key = waiting.pop()
        mine = ancestors[key] | 1 << places[key]
        for edge in edges[key]:
            target = edge.target
            ancestors[target] |= mine
            distance[target] = max(distance[target], distance[key] + 1)
            open_edges[target] -= 1
            if open_edges[target] == 0:
                waiting.append(target)
    return incoming, distance, ancestors
