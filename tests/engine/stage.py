"""Builds workflows in few words and plays runs of them on fakes; what it returns is looked at."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from insula.engine.document import Document
from insula.engine.events import Event, RunEnded, decode_events, encode_events
from insula.engine.execute import execute
from insula.engine.graph import plan
from insula.engine.ports import Ports, Stop
from insula.engine.state import RunState, fold
from insula.kit import json
from insula.testing import ListRecorder, ScriptedSandbox, fake_ports

Table = Mapping[str, Any]


def step(kind: str, key: str, *to: str, **more: Any) -> dict[str, Any]:
    """Make a step that leads to others."""
    return {"type": kind, "key": key, "destinations": list(to), **more}


def code(key: str, *to: str, **more: Any) -> dict[str, Any]:
    """Make a code step whose script is ``code_KEY()``."""
    return {"code": f"code_{key}()", **step("code", key, *to, **more)}


def branch(
    key: str, conditions: Mapping[str, list[str]], *to: str, otherwise: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Make a branch whose conditions' scripts are their keys."""
    named = {
        name: {"condition": name, "destinations": targets, "order": place}
        for place, (name, targets) in enumerate(conditions.items())
    }
    return {**step("branch", key, *to), "conditions": named, "else": list(otherwise)}


def model(key: str, *to: str, more: Mapping[str, Any] | None = None, **own: Any) -> dict[str, Any]:
    """Make a model step; ``own`` is its provider's, ``more`` the step's."""
    provider = {"provider": "mock", "model": "m", "messages": "Hello", **own}
    return {**step("model", key, *to), "provider": provider, **(more or {})}


def document(*steps: Mapping[str, Any]) -> Document:
    """Make a document of steps."""
    return Document.model_validate({"key": "w", "steps": list(steps)})


def scripted(table: Table) -> Callable[[str, Mapping[str, Any]], Any]:
    """Answer scripts from a table: a value, an exception to raise, a function of the scope.

    What is not in the table answers with itself.
    """

    def answer(script: str, scope: Mapping[str, Any]) -> Any:
        value = table.get(script, script)
        if isinstance(value, Exception):
            raise value
        return value(scope) if callable(value) else value

    return answer


@dataclass
class Played:
    """A run that was played: its end, its state, everything recorded, and what it used."""

    ended: RunEnded
    state: RunState
    events: list[Event]
    ports: Ports

    @property
    def statuses(self) -> dict[str, str]:
        return {key: step.status for key, step in self.state.steps.items()}

    @property
    def outputs(self) -> dict[str, Any]:
        return {
            key: None if step.output is None else json.decode(step.output)
            for key, step in self.state.steps.items()
        }

    @property
    def result(self) -> Any:
        result = self.state.result
        return None if result is None else json.decode(result)

    @property
    def scripts(self) -> list[str]:
        """Every script that was evaluated, in order."""
        return [script for one in self.ports.sandbox.evaluations for script in one.scripts]  # type: ignore[attr-defined]  # the fake's


def folded(events: list[Event]) -> RunState:
    """Fold events as they come back from where they were stored."""
    return fold(decode_events(encode_events(events)))


class Stage:
    """A run that is being played as a task of its own, so that it can be stopped."""

    def __init__(
        self,
        *steps: Mapping[str, Any],
        table: Table | None = None,
        sandbox: Any = None,
        state: RunState | None = None,
        start: str | None = None,
        forced: frozenset[str] = frozenset(),
        pause: Callable[[], Awaitable[None]] | None = None,
        **ports: Any,
    ) -> None:
        self.plan = plan(document(*steps), start)
        self.recorder = ports.pop("recorder", None) or ListRecorder()
        self.stop = Stop()
        made = sandbox or ScriptedSandbox(scripted(table or {}), pause)
        self.ports = fake_ports(made, self.recorder, stop=self.stop, **ports)
        self.state = state or RunState()
        self._forced = forced
        self.task: asyncio.Task[RunEnded] | None = None

    def begin(self) -> "Stage":
        self.task = asyncio.create_task(execute(self.plan, self.state, self.ports, self._forced))
        return self

    def cancel(self, kind: Any = "cancel") -> None:
        assert self.task is not None
        self.stop.kind = kind
        self.task.cancel()

    async def end(self) -> Played:
        assert self.task is not None
        ended = await self.task
        return Played(ended, self.state, [*self.recorder.events, ended], self.ports)


async def play(*steps: Mapping[str, Any], **given: Any) -> Played:
    """Play a run to its end."""
    return await Stage(*steps, **given).begin().end()


async def settled() -> None:
    """Let every task go on until all wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Gates:
    """Holds every evaluation until it is let through; ``waiting`` are those held, in order."""

    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    async def __call__(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        try:
            await gate
        finally:
            if gate in self.waiting:
                self.waiting.remove(gate)

    def let(self, place: int = 0) -> None:
        gate = self.waiting.pop(place)
        if not gate.done():
            gate.set_result(None)
