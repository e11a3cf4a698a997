"""Child runs: the engine's port for *workflow* steps, over runs of this process.

``ChildRuns`` is handed to a run before there is a child; what starts and executes runs stands above
it and is handed in as ``Carry``, so that runs may hold children and children be runs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from insula.engine.events import FinalStatus, Interruption
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, ChildOutcome, ChildRequest, Stop
from insula.engine.state import RunState
from insula.engine.view import output_view, usage_view
from insula.errors import InsulaError
from insula.kit import json
from insula.kit.clock import iso
from insula.runs.live import LiveRun
from insula.runs.rows import RunRow

MAX_DEPTH = 16
MAX_TREE = 1_000

Begin = Callable[[RunRow, ChildRequest], Awaitable["LiveRun | Ended"]]
"""Starts a child of a run, goes on with one that is stored, or finds that it has ended."""


class Ended:
    """A child that had ended before its parent was interrupted, as it is stored."""

    def __init__(self, row: RunRow, state: RunState) -> None:
        self.row = row
        self.state = state


class ChildRuns:
    """The children of one run; each is a live run with a task of its own."""

    def __init__(self, parent: RunRow, stop: Stop, begin: Begin) -> None:
        self._parent = parent
        self._stop = stop
        self._begin = begin
        self._receipts: dict[str, tuple[Interruption, ...]] = {}

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        """Run a child to its stored end; cancelled, it comes out when the child has ended."""
        try:
            child = await self._begin(self._parent, request)
        except InsulaError as error:
            raise StepFailure(error.message, "child") from error
        if isinstance(child, LiveRun):
            activity.doing = f"child run {child.row.id}"
            await self._follow(child)
            if child.fenced:
                raise StepFailure("The child run went to another process", "interrupted")
        status = cast(FinalStatus, child.row.status)
        return ChildOutcome(status, json.raw(_output(child)), child.row.error, child.row.credits)

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        """Return what a child's receipt says, with the child's id before each path."""
        return self._receipts.get(run_id, ())

    async def _follow(self, child: LiveRun) -> None:
        try:
            await asyncio.shield(child.finished)
        except asyncio.CancelledError:
            child.stop("shutdown" if self._stop.kind == "shutdown" else "cancel")
            while not child.finished.done():
                try:
                    await asyncio.shield(child.finished)
                except asyncio.CancelledError:
                    continue  # asked again: the child is stopping already
            self._receipts[child.row.id] = tuple(
                msgspec.structs.replace(i, path=(child.row.id, *i.path))
                for i in child.state.interruptions
            )
            raise


def _output(child: "LiveRun | Ended") -> dict[str, Any]:
    """The *workflow* step's output (``StepWorkflowOutputSchema``)."""
    row, state = child.row, child.state
    return {
        "run_id": row.id,
        "app_id": row.app_id,
        "workflow_id": row.workflow_id,
        "workflow_app_id": row.workflow_app_id,
        "status": row.status,
        "origin": row.origin,
        "error": row.error,
        "usage": usage_view(state),
        "result": state.result,
        "output": output_view(state),
        "date": iso(row.created_at),
    }
