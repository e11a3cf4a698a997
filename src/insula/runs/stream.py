"""A run as server-sent events: ``run``, ``step`` and ``chunk``, numbered, and never too early.

What is streamed is what is stored. The numbers follow from the events alone, so that a reader can
go on where it stopped, from any process.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from insula.engine.events import (
    Chunk,
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
    StepReset,
    StepSkipped,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.engine.state import RunState
from insula.engine.view import call_view
from insula.kit import json
from insula.runs.reading import Look, find, look_stored
from insula.runs.render import Sight, run_members, shown_step
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.sse import frame


@dataclass(slots=True)
class Wire:
    """Turns stored events into wire events; ``last`` is the number of the last one."""

    look: Look
    state: RunState
    last: int = 0

    def take(self, events: Iterable[Event]) -> list[tuple[int, str, dict[str, Any]]]:
        """Fold events in; return what they are on the wire, except for the final ``run``."""
        told = []
        for event in events:
            self.state.apply(event)
            for name, data in self._told(event):
                self.last += 1
                told.append((self.last, name, data))
        return told

    def current(self) -> dict[str, Any]:
        """Return the run as folded so far."""
        look = self.look
        row = look.row
        if not row.is_final:
            row = replace(row, status=self.state.status)
        return run_members(row, self.state, look.input, look.sight)

    def _told(self, event: Event) -> list[tuple[str, dict[str, Any]]]:
        if not isinstance(event, RunStarted):
            return step_told(event, self.state, self.look.sight)
        row = replace(self.look.row, status="RUNNING", ended_at=None, error=None)
        begun = RunState(status="RUNNING", started_at=event.at)
        return [("run", run_members(row, begun, self.look.input, self.look.sight))]


def step_told(event: Event, state: RunState, sight: Sight) -> list[tuple[str, dict[str, Any]]]:
    """Return what an event, already folded in, is on the wire: a ``step``, a ``chunk``, nothing."""
    if isinstance(event, RunStarted | RunEnded) or not sight.sees(event.key):
        return []
    match event:
        case StepStarted() | StepSkipped() | StepEnded() | StepReset():
            return [("step", shown_step(state.steps[event.key], sight))]
        case Chunk():
            return [("chunk", _chunk(event))]
        case UnitStarted() | UnitEnded():
            if event.call is None or sight.visible is not None:
                return []
            call = state.steps[event.key].calls[(event.index, event.round, event.call)]
            data = {"key": event.key, "status": "RUNNING", "calls": [call_view(call)]}
            return [("chunk", data)]


def _chunk(event: Chunk) -> dict[str, Any]:
    output: dict[str, Any] = {
        "model": event.model,
        "provider": event.provider,
        "message": event.text,
    }
    if event.index is not None:
        output["index"] = event.index
    return {"key": event.key, "status": "RUNNING", "output": output}


def _frame(number: int, name: str, data: dict[str, Any]) -> bytes:
    return frame(name, json.encode(data), number)


async def from_start(
    services: RunServices, look: Look, batches: AsyncIterator[list[Event]]
) -> AsyncGenerator[bytes, None]:
    """Stream a run from its first event; ``batches`` ends with the run or when it is too slow."""
    wire = Wire(look, RunState())
    async for events in batches:
        for number, name, data in wire.take(events):
            yield _frame(number, name, data)
        if _is_over(events):
            yield await _final(services, wire)
            return


async def resumed(
    services: RunServices, look: Look, batches: AsyncIterator[list[Event]], after: int | None
) -> AsyncGenerator[bytes, None]:
    """Stream a run from the event after ``after``, or from its current fold if that is ``None``.

    The first batch is what is stored; the others are live.
    """
    wire = Wire(look, RunState())
    first = True
    async for events in batches:
        told = wire.take(events)
        over = _is_over(events)
        if first and after is None:
            if not over:
                yield _frame(wire.last, "run", wire.current())
        else:
            for number, name, data in told:
                if after is None or number > after:
                    yield _frame(number, name, data)
        first = False
        if over:
            yield await _final(services, wire)
            return


async def final_number(services: RunServices, look: Look) -> int:
    """Return the number of an ended run's last wire event."""
    events, _ = await services.journal.read(look.row.id)
    wire = Wire(look, RunState())
    wire.take(events)
    return wire.last + 1


def erased(look: Look) -> bytes:
    """Return all that is left to stream of an erased run: its end."""
    data = run_members(look.row, look.state, look.input, look.sight)
    return frame("run", json.encode(data))


def _is_over(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], RunEnded)


async def _final(services: RunServices, wire: Wire) -> bytes:
    """Make the last event: the run as its row and its fold have it at the end."""
    row: RunRow = wire.look.row
    if not row.is_final:
        stored = await find(services, row.app_id, row.workflow_id, row.id, own_workflow=False)
        row = stored
        row.error = wire.state.error
    data = run_members(row, wire.state, wire.look.input, wire.look.sight)
    return _frame(wire.last + 1, "run", data)


async def look_for_stream(services: RunServices, row: RunRow, viewer: str) -> Look:
    """Look at a run that is to be streamed; its events come by themselves."""
    look = await look_stored(services, row, viewer)
    return look if row.erased_at is not None else replace(look, state=RunState())
