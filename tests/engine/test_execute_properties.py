"""What holds for every workflow, in whatever order its steps finish and wherever its process dies.

Random graphs are compared with a second, naive reading of the rules that shares no code with the
engine's.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.stage import Gates, Played, Stage, folded, play, settled

from insula.engine.events import (
    Event,
    RunEnded,
    StepEnded,
    StepSkipped,
    StepStarted,
    UnitEnded,
    decode_events,
    encode_events,
)
from insula.engine.failures import StepFailure
from insula.engine.state import fold
from insula.testing import ListRecorder

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Node:
    """A step of a random workflow. ``fails``: never (-1), or at that iteration."""

    key: str
    kind: str
    targets: list[str]
    conditional: bool | None = None
    items: int | None = None
    fails: int = -1
    throws: bool = False
    connected: bool = False
    conditions: dict[str, tuple[bool, list[str]]] = field(default_factory=dict)
    otherwise: list[str] = field(default_factory=list)

    def edges(self) -> list[tuple[str, str]]:
        told = [("", t) for t in self.targets]
        for name, (_, targets) in self.conditions.items():
            told += [(f"if {name}", t) for t in targets]
        return told + [("else", t) for t in self.otherwise]


@st.composite
def graphs(draw: st.DrawFn, throws: bool = False) -> list[Node]:
    size = draw(st.integers(1, 7))
    keys = [f"S{i}" for i in range(size)]
    nodes = []
    for i, key in enumerate(keys):
        later = keys[i + 1 :]
        some = st.lists(st.sampled_from(later), max_size=3, unique=True) if later else st.just([])
        kind = draw(st.sampled_from(["code", "code", "code", "branch"]))
        node = Node(key, kind, draw(some))
        node.conditional = draw(st.sampled_from([None, None, None, True, False]))
        node.connected = draw(st.integers(0, 5)) == 0
        if kind == "branch":
            for name in draw(st.lists(st.sampled_from("ab"), unique=True)):
                node.conditions[f"{key}_{name}"] = (draw(st.booleans()), draw(some))
            node.otherwise = draw(some)
        elif draw(st.integers(0, 3)) == 0:
            node.items = draw(st.integers(0, 3))
        if draw(st.integers(0, 4)) == 0:
            node.fails = draw(st.integers(0, 2))
            node.throws = throws and draw(st.booleans())
        nodes.append(node)
    return draw(st.permutations(nodes))


def steps_of(nodes: list[Node]) -> list[dict[str, Any]]:
    """Write the workflow down. Scripts name every step, so that each tells what it could see."""
    every = ", ".join(sorted(node.key for node in nodes))
    made = []
    for node in nodes:
        step: dict[str, Any] = {
            "type": node.kind,
            "key": node.key,
            "destinations": node.targets,
            "throw_on_error": node.throws,
            "input_connected": node.connected,
        }
        if node.conditional is not None:
            step["conditional"] = f"ask_{node.key}({every})"
        if node.items is not None:
            step["loop"] = f"next_{node.key}(index)"
        if node.kind == "code":
            step["code"] = f"code_{node.key}(index, {every})"
        else:
            step["else"] = node.otherwise
            step["conditions"] = {
                name: {"condition": f"if_{name}({every})", "destinations": targets, "order": i}
                for i, (name, (_, targets)) in enumerate(node.conditions.items())
            }
        made.append(step)
    return made


def table_of(nodes: list[Node]) -> dict[str, Any]:
    """Say what each script answers: what it sees, for code."""
    every = ", ".join(sorted(node.key for node in nodes))
    table: dict[str, Any] = {}
    for node in nodes:
        table[f"ask_{node.key}({every})"] = node.conditional
        table[f"next_{node.key}(index)"] = _items(node)
        table[f"code_{node.key}(index, {every})"] = _code(node)
        for place, (name, (holds, _)) in enumerate(node.conditions.items()):
            table[f"if_{name}({every})"] = _condition(node, holds, first=place == 0)
    return table


def _items(node: Node) -> Any:
    return lambda scope: scope["index"] if scope["index"] < (node.items or 0) else None


def _code(node: Node) -> Any:
    def answer(scope: Mapping[str, Any]) -> Any:
        if scope.get("index", 0) == node.fails:
            raise StepFailure(f"{node.key} broke", "script")
        return {name: seen["status"] for name, seen in scope.items() if name != "index"}

    return answer


def _condition(node: Node, holds: bool, *, first: bool) -> Any:
    def answer(scope: Mapping[str, Any]) -> Any:
        if first and node.fails == 0:
            raise StepFailure(f"{node.key} broke", "script")
        return holds

    return answer


def fails(node: Node) -> bool:
    if node.kind == "branch":
        return node.fails == 0 and bool(node.conditions)
    return 0 <= node.fails < (1 if node.items is None else node.items)


# --- The second reading of the rules, for runs in which nothing is thrown.


@dataclass
class Told:
    """What the rules say about one step."""

    status: str
    output: Any = None
    live: frozenset[str] = frozenset()


def reading(nodes: list[Node]) -> dict[str, Told]:
    by_key = {node.key: node for node in nodes}
    led_to = {target for node in nodes for _, target in node.edges()}
    connected = [node.key for node in nodes if node.connected]
    entries = connected or [node.key for node in nodes if node.key not in led_to]
    reach = set(entries)
    for key in sorted(by_key):  # edges lead from lower keys to higher ones
        if key in reach:
            reach |= {target for _, target in by_key[key].edges()}
    told: dict[str, Told] = {}
    for key in sorted(reach):
        incoming = [
            group in told[source].live
            for source in sorted(reach)
            if source < key
            for group, target in by_key[source].edges()
            if target == key
        ]
        runs = key in entries or any(incoming)
        told[key] = _outcome(by_key[key], runs, _seen(key, by_key, reach, told))
    return told


def _seen(
    key: str, by_key: dict[str, Node], reach: set[str], told: dict[str, Told]
) -> dict[str, str]:
    ancestors: set[str] = set()
    for source in sorted(reach, reverse=True):
        leads = {target for _, target in by_key[source].edges()}
        if source < key and (key in leads or leads & ancestors):
            ancestors.add(source)
    return {k: told[k].status for k in ancestors if told[k].status != "SKIPPED"}


def _outcome(node: Node, runs: bool, seen: dict[str, str]) -> Told:
    ordinary = frozenset([""])
    if not runs:
        return Told("SKIPPED")
    if node.conditional is False:
        return Told("SKIPPED", live=ordinary)
    if node.kind == "branch":
        if fails(node):
            return Told("FAILED", live=ordinary)
        held = {name: holds for name, (holds, _) in node.conditions.items()}
        opened = [f"if {name}" for name, holds in held.items() if holds] or ["else"]
        return Told("COMPLETED", held, ordinary | set(opened))
    if node.items is None:
        if fails(node):
            return Told("FAILED", live=ordinary)
        return Told("COMPLETED", seen, ordinary)
    count = node.fails if fails(node) else node.items
    status = "FAILED" if fails(node) else "COMPLETED"
    return Told(status, [seen] * count, ordinary)


def result_of(nodes: list[Node], told: dict[str, Told]) -> Any:
    place = {node.key: i for i, node in enumerate(nodes)}
    distance: dict[str, int] = {}
    by_key = {node.key: node for node in nodes}
    for key in sorted(told):
        sources = [s for s in told if s < key and key in {t for _, t in by_key[s].edges()}]
        distance[key] = max((distance[s] + 1 for s in sources), default=0)
    done = [k for k in told if told[k].status == "COMPLETED" and by_key[k].kind == "code"]
    if not done:
        return None
    return told[max(done, key=lambda k: (distance[k], place[k]))].output


# --- The properties.


def check_against_reading(nodes: list[Node], run: Played) -> None:
    told = reading(nodes)
    assert run.statuses == {key: one.status for key, one in told.items()}
    assert run.outputs == {key: one.output for key, one in told.items()}
    skipped = all(one.status == "SKIPPED" for one in told.values())
    assert run.ended.status == ("SKIPPED" if skipped else "COMPLETED")
    assert run.result == (None if skipped else result_of(nodes, told))


def check_events(events: list[Event]) -> None:
    """Nothing begins twice, nothing ends twice, nothing follows the end."""
    begun = [e.key for e in events if isinstance(e, StepStarted | StepSkipped)]
    ended = [e.key for e in events if isinstance(e, StepEnded | StepSkipped)]
    assert len(begun) == len(set(begun))
    assert sorted(ended) == sorted(begun)
    assert isinstance(events[-1], RunEnded)
    assert sum(isinstance(e, RunEnded) for e in events) == 1


@FEW
@given(graphs())
def test_every_reachable_step_runs_once_or_is_skipped(nodes: list[Node]) -> None:
    async def check() -> None:
        run = await play(*steps_of(nodes), table=table_of(nodes))
        check_against_reading(nodes, run)
        check_events(run.events)
        assert decode_events(encode_events(run.events)) == run.events
        assert folded(run.events) == fold(run.events) == run.state

    asyncio.run(check())


@FEW
@given(graphs(), st.data())
def test_who_finishes_first_changes_nothing(nodes: list[Node], data: st.DataObject) -> None:
    async def check() -> None:
        gates = Gates()
        stage = Stage(*steps_of(nodes), table=table_of(nodes), pause=gates).begin()
        assert stage.task is not None
        await settled()
        while not stage.task.done():
            gates.let(data.draw(st.integers(0, len(gates.waiting) - 1)))
            await settled()
        check_against_reading(nodes, await stage.end())

    asyncio.run(check())


def finished_units(events: list[Event]) -> set[tuple[str, int | None]]:
    """Say which code, by step and iteration, has been evaluated to its stored end."""
    done: set[tuple[str, int | None]] = set()
    for event in events:
        if isinstance(event, UnitEnded):
            done.add((event.key, event.index))
        elif isinstance(event, StepEnded):
            done |= {(event.key, index) for index in (None, 0, 1, 2, 3)}
    return done


def evaluated(run: Played) -> list[tuple[str, int | None]]:
    """Say which code was evaluated in this run, by step and iteration."""
    told = []
    for one in run.ports.sandbox.evaluations:  # type: ignore[attr-defined]  # the fake's
        for script in one.scripts:
            if script.startswith("code_"):
                index = one.scope.get("index")
                key = script[len("code_") : script.index("(")]
                told.append((key, None if index is None else int(bytes(index))))
    return told


@FEW
@given(graphs())
def test_a_run_goes_on_from_wherever_its_process_died(nodes: list[Node]) -> None:
    async def check() -> None:
        steps, table = steps_of(nodes), table_of(nodes)
        whole = await play(*steps, table=table)
        for length in range(len(whole.events)):
            before = whole.events[:length]
            run = await play(*steps, table=table, state=folded(before))
            check_against_reading(nodes, run)
            check_events([*before, *run.events])
            assert folded([*before, *run.events]) == run.state
            units = evaluated(run)
            assert len(units) == len(set(units))
            assert not finished_units(before) & set(units)

    asyncio.run(check())


@FEW
@given(graphs(throws=True), st.data())
def test_a_failure_stops_the_rest(nodes: list[Node], data: st.DataObject) -> None:
    calm = reading(nodes)
    thrown = {n.key for n in nodes if n.throws and calm.get(n.key, Told("")).status == "FAILED"}

    async def check() -> None:
        gates = Gates()
        stage = Stage(*steps_of(nodes), table=table_of(nodes), pause=gates).begin()
        assert stage.task is not None
        await settled()
        while not stage.task.done():
            gates.let(data.draw(st.integers(0, len(gates.waiting) - 1)))
            await settled()
        run = await stage.end()
        check_events(run.events)
        broken = [key for key in thrown if run.statuses.get(key) == "FAILED"]
        if not broken:
            check_against_reading(nodes, run)
            return
        assert run.ended.status == "FAILED"
        assert run.result is None
        assert run.ended.error in {f"{key} broke" for key in broken}
        assert len(broken) == 1
        # Whoever was done by then did what it does in a run without a throw.
        for key, status in run.statuses.items():
            if status != "CANCELLED":
                assert (status, run.outputs[key]) == (calm[key].status, calm[key].output)

    asyncio.run(check())


@FEW
@given(graphs(), st.data(), st.sampled_from(["cancel", "deadline", "shutdown"]))
def test_stopping_at_any_event(nodes: list[Node], data: st.DataObject, kind: str) -> None:
    steps, table = steps_of(nodes), table_of(nodes)

    async def breathe() -> None:
        await asyncio.sleep(0)

    async def check() -> None:
        whole = await play(*steps, table=table, pause=breathe)
        at = data.draw(st.integers(1, len(whole.events) - 1))
        recorder = ListRecorder()
        stage = Stage(*steps, table=table, pause=breathe, recorder=recorder)
        recorder.after = lambda event: stage.cancel(kind) if len(recorder.events) == at else None
        stage.begin()
        if kind == "shutdown":
            with pytest.raises(asyncio.CancelledError):
                await stage.end()
            assert not any(s.status == "CANCELLED" for s in stage.state.steps.values())
            again = await play(*steps, table=table, state=folded(recorder.events))
            check_against_reading(nodes, again)
            return
        run = await stage.end()
        assert run.ended.status == ("CANCELLED" if kind == "cancel" else "FAILED")
        check_stopped(nodes, run, at)
        evaluations = len(run.ports.sandbox.evaluations)  # type: ignore[attr-defined]  # the fake's
        await settled()
        assert len(run.ports.sandbox.evaluations) == evaluations  # type: ignore[attr-defined]  # the fake's
        assert len(recorder.events) == len(run.events) - 1

    asyncio.run(check())


def check_stopped(nodes: list[Node], run: Played, at: int) -> None:
    """The shape that is promised: what ran is CANCELLED, what ended stands, the rest is absent."""
    check_events(run.events)
    assert folded(run.events) == run.state
    calm = reading(nodes)
    cancelled = {key for key, status in run.statuses.items() if status == "CANCELLED"}
    assert {told.key for told in run.ended.interruptions} == cancelled
    assert run.ports.activities == {}
    assert not any(isinstance(e, StepStarted) for e in run.events[at:])
    for key, step in run.state.steps.items():
        assert step.end is not None
        if key not in cancelled:
            assert (step.status, run.outputs[key]) == (calm[key].status, calm[key].output)
        elif step.looped:
            assert run.outputs[key] == calm[key].output[: len(run.outputs[key])]
        else:
            assert run.outputs[key] is None
