"""Which steps run next: a pure function of plan and outcomes, without clock, network, database.

A step is decided once, when every edge that leads to it from a reachable step is settled: it runs
if one of them is live, else it is skipped and its own edges are dead.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from insula.engine.graph import ELSE, ORDINARY, Edge, Plan, condition_group
from insula.engine.state import RunState, StepState, output_is_object
from insula.kit import json


@dataclass(frozen=True, slots=True)
class Decision:
    """A step that is to run, or that is skipped because no live edge leads to it."""

    key: str
    run: bool


@dataclass(slots=True)
class Frontier:
    """How many edges each step still waits for, and which steps a live edge has reached."""

    open_edges: dict[str, int]
    live: set[str] = field(default_factory=set)


def begin(plan: Plan, forced: frozenset[str] = frozenset()) -> tuple[Frontier, list[Decision]]:
    """Decide the entries. ``forced`` steps are live whatever leads to them (a replay's start)."""
    frontier = Frontier({key: node.incoming for key, node in plan.nodes.items()}, set(forced))
    decisions: list[Decision] = []
    for key in plan.entries:
        decisions += _settle_edges(plan, frontier, [(Edge(key), True)])
    return frontier, decisions


def settle(plan: Plan, frontier: Frontier, step: StepState) -> list[Decision]:
    """Take the end of a step in, and decide what that settles, skipped steps' edges included."""
    edges = plan.nodes[step.key].edges
    if not edges:
        return []
    groups = live_groups(step)
    return _settle_edges(plan, frontier, [(e, e.group in groups) for e in edges])


def resume(
    plan: Plan, state: RunState, forced: frozenset[str] = frozenset()
) -> tuple[Frontier, list[Decision]]:
    """Rebuild the frontier of a run from its state; return what is decided but not yet begun.

    Steps that were running when the run was interrupted are among the decisions. A step that began
    was live, whatever leads to it now: in a replay of a replay, what made it live may be gone.
    """
    began = {s.key for s in state.steps.values() if s.status != "SKIPPED" or s.conditional}
    frontier, first = begin(plan, forced | began)
    return frontier, still_open(plan, state, frontier, first)


def still_open(
    plan: Plan, state: RunState, frontier: Frontier, decided: Sequence[Decision]
) -> list[Decision]:
    """Return what is yet to be begun of what is decided: of a step that has ended already, what its
    end decides. So ends a step whose output was given to the run before it came there."""
    decisions = deque(decided)
    open_decisions: list[Decision] = []
    while decisions:
        decision = decisions.popleft()
        step = state.steps.get(decision.key)
        if step is None or step.end is None:
            open_decisions.append(decision)
        elif decision.run:
            decisions += settle(plan, frontier, step)
        # A skipped step's dead edges were settled with the decision itself.
    return open_decisions


def live_groups(step: StepState) -> frozenset[str]:
    """Return the groups of a settled step's edges that are live."""
    if step.status == "SKIPPED":
        return frozenset((ORDINARY,)) if step.conditional else frozenset()
    if step.status not in ("COMPLETED", "FAILED"):
        return frozenset()
    if step.type != "branch" or step.status == "FAILED" or step.output is None:
        return frozenset((ORDINARY,))
    if not output_is_object(step.output):  # it was given to the run, and tells of no condition
        return frozenset((ORDINARY,))
    held = held_conditions(json.decode(step.output))
    return frozenset((ORDINARY, *([condition_group(key) for key in held] or (ELSE,))))


def held_conditions(output: Mapping[str, object]) -> list[str]:
    """Return the keys of the conditions that held, from a branch's output."""
    return [key for key, held in output.items() if held is True]


def _settle_edges(
    plan: Plan, frontier: Frontier, settled: list[tuple[Edge, bool]]
) -> list[Decision]:
    decisions: list[Decision] = []
    waiting = settled
    position = 0
    while position < len(waiting):
        edge, live = waiting[position]
        position += 1
        key = edge.target
        frontier.open_edges[key] -= 1
        if live:
            frontier.live.add(key)
        if frontier.open_edges[key]:
            continue
        run = key in frontier.live
        decisions.append(Decision(key, run))
        if not run:
            waiting += [(e, False) for e in plan.nodes[key].edges]
    return decisions
