"""A run as server-sent events: ``run``, ``step`` and ``chunk``, numbered, and never too early.

What is streamed is what is stored. The numbers follow from the events alone, so that a reader can
go on where it stopped, from any process.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from insula.engine.events import (
    Chunk,
    Event,
    RunEnded,
    RunLeft,
    RunStarted,
    StepEnded,
    StepReset,
    StepSkipped,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.engine.state import RunState, StepState
from insula.engine.view import call_view
from insula.kit import json
from insula.runs.reading import Look, Stored, find
from insula.runs.render import Sight, run_members, shown_step
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.sse import frame

Batches = AsyncGenerator[list[Event], None]


@dataclass(slots=True)
class Wire:
    """Turns stored events into wire events; ``last`` is the number of the last one."""

    look: Look
    state: RunState
    last: int = 0

    def take(self, events: Iterable[Event]) -> list[tuple[int, str, dict[str, Any]]]:
        """Fold events in; return what they are on the wire, except for the final ``run``."""
        told = []
        sight = self.look.sight
        counted = self.look.counted or sight
        for event in events:
            self.state.apply(event)
            pieces = self._told(event, counted)
            self.last += len(pieces)
            if pieces and counted is not sight:
                pieces = self._told(event, sight)
            told += [(self.last, name, data) for name, data in pieces]
        return told

    def current(self) -> dict[str, Any]:
        """Return the run as folded so far."""
        look = self.look
        return run_members(look.row, self.state, look.input, look.sight)

    def _told(self, event: Event, sight: Sight) -> list[tuple[str, dict[str, Any]]]:
        """Return what an event is on the wire: one piece, or none."""
        if not isinstance(event, RunStarted):
            return step_told(event, self.state, sight)
        # As it stood then, whenever it is told. A replay that never began has this event, too.
        status = "PENDING" if self.look.row.started_at is None else "RUNNING"
        row = replace(
            self.look.row,
            status=status,
            error=None,
            ended_at=None,
            erased_at=None,
            retention_due_at=None,
            updated_at=event.at,
        )
        begun = RunState(status=status, started_at=event.at)
        return [("run", run_members(row, begun, self.look.input, sight))]


def step_told(event: Event, state: RunState, sight: Sight) -> list[tuple[str, dict[str, Any]]]:
    """Return what an event, already folded in, is on the wire: a ``step``, a ``chunk``, nothing."""
    if isinstance(event, RunStarted | RunLeft | RunEnded) or not sight.sees(event.key):
        return []
    match event:
        case StepStarted() | StepSkipped() | StepEnded() | StepReset():
            return [("step", shown_step(state.steps[event.key], sight))]
        case Chunk():
            return [("chunk", _chunk(event))]
        case UnitStarted() | UnitEnded():
            step = state.steps[event.key]
            call = step.calls.get((event.index, event.round, event.call))
            if call is None or sight.visible is not None:
                return []
            return [("chunk", {**_calling(step, event), "calls": [call_view(call)]})]


def _chunk(event: Chunk) -> dict[str, Any]:
    return _piece(event.key, event.model, event.provider, event.text, event.index)


def _calling(step: StepState, event: UnitStarted | UnitEnded) -> dict[str, Any]:
    """Return the chunk that a call stands in, as of the model that called; what a replay keeps has
    no round of a model any more."""
    asked = step.units.get((event.index, event.round, None))
    if asked is None or asked.output is None:
        return {"key": step.key, "status": "RUNNING"}
    told = json.members(asked.output)
    return _piece(step.key, told["model"], told["provider"], "", event.index)


def _piece(key: str, model: Any, provider: Any, text: str, index: int | None) -> dict[str, Any]:
    output = {"model": model, "provider": provider, "message": text}
    if index is not None:
        output["index"] = index
    return {"key": key, "status": "RUNNING", "output": output}


def _frame(number: int, name: str, data: dict[str, Any]) -> bytes:
    return frame(name, json.encode(data), number)


async def from_start(
    services: RunServices, look: Look, batches: Batches
) -> AsyncGenerator[bytes, None]:
    """Stream a run from its first event; ``batches`` ends with the run or when it is too slow."""
    async with aclosing(_following(services, Wire(look, RunState()), batches)) as pieces:
        async for piece in pieces:
            yield piece


async def resumed(
    services: RunServices,
    look: Look,
    stored: Stored,
    batches: Batches,
    after: int | None,
) -> AsyncGenerator[bytes, None]:
    """Stream a run from the event after ``after``; without it, from its current fold, or if it has
    ended, all that is stored. ``batches`` are what comes after ``stored``.
    """
    wire = Wire(look, RunState())
    held: list[Event] = []
    if stored.row.status == "PENDING":  # what a replay keeps is told when it begins
        held, stored = stored.events, replace(stored, events=[])
    told = wire.take(stored.events)
    if after is None and stored.row.status == "PENDING":
        yield _frame(0, "run", run_members(look.row, look.state, look.input, look.sight))
    elif after is None and not stored.row.is_final:
        yield _frame(wire.last, "run", wire.current())
    else:
        for number, name, data in told:
            if after is None or number > after:
                yield _frame(number, name, data)
    if _is_over(stored.events):
        yield await _final(services, wire)
        return
    following = _following(services, wire, _behind(held, batches), after or 0)
    async with aclosing(following) as pieces:
        async for piece in pieces:
            yield piece


async def _behind(held: list[Event], batches: Batches) -> Batches:
    """Yield batches, and what was ``held`` together with the first one."""
    async with aclosing(batches):
        async for events in batches:
            yield [*held, *events]
            held = []


async def _following(
    services: RunServices, wire: Wire, batches: Batches, after: int = 0
) -> AsyncGenerator[bytes, None]:
    async with aclosing(batches):
        async for events in batches:
            if wire.look.row.started_at is None:  # it waited until now
                wire.look = replace(wire.look, row=await _row(services, wire.look.row))
            for number, name, data in wire.take(events):
                if number > after:
                    yield _frame(number, name, data)
            if _is_over(events):
                yield await _final(services, wire)
                return
    row = await _row(services, wire.look.row)
    if row.erased_at is not None and row.is_final:  # it was erased before it could be read
        yield erased(replace(wire.look, row=row, input=None))


def final_number(look: Look, stored: Stored) -> int:
    """Return the number of an ended run's last wire event; of an erased run, one that is greater
    than any that was told."""
    if stored.row.erased_at is not None:
        return stored.seq
    wire = Wire(look, RunState())
    wire.take(stored.events)
    return wire.last + 1


def erased(look: Look) -> bytes:
    """Return all that is left to stream of an erased run: its end."""
    state = RunState(status=look.row.status)
    data = run_members(look.row, state, None, look.sight)
    return _frame(look.row.seq, "run", data)


def _is_over(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], RunEnded)


async def _final(services: RunServices, wire: Wire) -> bytes:
    """Make the last event: the run as its row and its fold have it at the end."""
    row = wire.look.row
    if not row.is_final:
        # Erased with its end, its error is still told here.
        row = replace(await _row(services, row), error=wire.state.error)
    data = run_members(row, wire.state, wire.look.input, wire.look.sight)
    return _frame(wire.last + 1, "run", data)


async def _row(services: RunServices, row: RunRow) -> RunRow:
    return await find(services, row.app_id, row.workflow_id, row.id, own_workflow=False)
