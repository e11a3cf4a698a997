"""Child runs: the engine's port for *workflow* steps, over runs of this process.

``ChildRuns`` is handed to a run before there is a child; what starts and executes runs stands above
it and is handed in as ``Carry``, so that runs may hold children and children be runs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from insula.engine.display import display_of
from insula.engine.events import FinalStatus, Interruption
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, ChildOutcome, ChildRequest, Fenced, Stop
from insula.engine.state import RunState
from insula.errors import InsulaError, Unavailable
from insula.kit import json
from insula.kit.clock import iso
from insula.kit.json import Raw
from insula.runs.configured import concealed
from insula.runs.live import LiveRun
from insula.runs.render import Sight, closed_to, run_output, shown_error, shown_result, usage_of
from insula.runs.rows import RunRow
from insula.workflows.resolve import Runnable

MAX_DEPTH = 16
MAX_TREE = 1_000
_RETRIED_EVERY = 0.5
_TOLD = 3
"""How many of the things that are wrong with a child's input its parent's step names."""

Begin = Callable[[RunRow, ChildRequest, Stop], Awaitable["LiveRun | Ended"]]
"""Starts a child of a run, goes on with one that is stored, or finds that it has ended. Cancelled,
it comes out when there is no child, or when the child has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that had ended before its parent was interrupted, as it is stored."""

    row: RunRow
    state: RunState
    runnable: Runnable


class ChildRuns:
    """The children of one run; each is a live run with a task of its own."""

    def __init__(self, parent: RunRow, stop: Stop, begin: Begin, patience: float = 0.0) -> None:
        self._patience = patience
        self._parent = parent
        self._stop = stop
        self._begin = begin
        self._receipts: dict[str, tuple[Interruption, ...]] = {}
        self._credits: dict[str, float] = {}
        self._outputs: dict[str, Raw] = {}

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        """Run a child to its stored end; cancelled, it comes out when the child has ended."""
        try:
            child = await self._begun(request)
        except InsulaError as error:
            raise StepFailure(_refused(error), "child") from error
        if isinstance(child, LiveRun):
            activity.doing = f"child run {child.row.id}"
            await self._follow(child)
            if child.fenced:
                raise Fenced(child.row.id)
        return self._outcome(child)

    def _outcome(self, child: "LiveRun | Ended") -> ChildOutcome:
        # What the step holds is what the parent's app may see: it is a caller of the child's.
        viewer = self._parent.workflow_app_id
        visible = closed_to(child.runnable, viewer)
        unseen = concealed(child.row, viewer, closed=visible is not None)
        sight = Sight(None, None, visible, unseen)
        words = child.row.error and shown_error(child.row.error, child.state, sight)
        output = json.raw(_output(child, sight, words))
        status = cast(FinalStatus, child.row.status)
        return ChildOutcome(status, output, words, child.row.credits)

    async def _begun(self, request: ChildRequest) -> "LiveRun | Ended":
        """Begin the child; while nothing can be stored the step waits, as before any effect."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        while True:
            try:
                return await self._begin(self._parent, request, self._stop)
            except Unavailable:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_RETRIED_EVERY)

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        """Return what a child's receipt says, with the child's id before each path."""
        return self._receipts.get(run_id, ())

    def credits(self, run_id: str) -> float:
        """Return what a child has cost that has ended here."""
        return self._credits.get(run_id, 0.0)

    def output(self, run_id: str) -> Raw | None:
        """Return the step's output of a child that was stopped here."""
        return self._outputs.get(run_id)

    async def _follow(self, child: LiveRun) -> None:
        try:
            await asyncio.shield(child.finished)
        except asyncio.CancelledError:
            await stop_child(child, self._stop)
            self._receipts[child.row.id] = told_above(child)
            if child.row.is_final:
                self._outputs[child.row.id] = self._outcome(child).output
            raise
        finally:
            self._credits[child.row.id] = child.row.credits


def _refused(error: InsulaError) -> str:
    """Say why there is no child: what is wrong with its input stands in the entries alone."""
    wrong = [one.message for one in error.errors if one.message not in error.message]
    more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    return f"{error.message}: {'; '.join(wrong[:_TOLD])}{more}" if wrong else error.message


async def stop_child(child: LiveRun, stop: Stop) -> None:
    """Stop a child for the reason for which its parent stops, and wait for its end."""
    child.stop("shutdown" if stop.kind == "shutdown" else "cancel")
    while not child.finished.done():
        try:
            await asyncio.shield(child.finished)
        except asyncio.CancelledError:
            continue  # asked again: the child is stopping already


def told_above(child: LiveRun) -> tuple[Interruption, ...]:
    """Return what a child's steps were doing, as the app whose runs these are may see it.

    Hidden ones lose their words and their names; how many they are stays.
    """
    row = child.row
    visible = frozenset[str]() if row.hidden else closed_to(child.runnable, row.app_id)
    told = []
    for one in child.state.interruptions:
        if visible is None or (one.key in visible and not one.path):
            told.append(msgspec.structs.replace(one, path=(row.id, *one.path)))
        else:
            told.append(msgspec.structs.replace(one, key="", doing="", path=()))
    return tuple(told)


def _output(child: LiveRun | Ended, sight: Sight, error: str | None) -> dict[str, Any]:
    """The *workflow* step's output (``StepWorkflowOutputSchema``)."""
    row, state = child.row, child.state
    display = display_of(state)
    return {
        "run_id": row.id,
        "app_id": row.app_id,
        "workflow_id": row.workflow_id,
        "workflow_app_id": row.workflow_app_id,
        "status": row.status,
        "origin": row.origin,
        "error": error,
        "usage": usage_of(row, state, sight),
        "result": shown_result(state, sight),
        "output": run_output(state, sight),
        "date": iso(row.created_at),
        **({"display": display} if display else {}),
    }
