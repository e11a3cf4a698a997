"""Going on with runs whose process died: take over, fold, continue, or end what was cancelled."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from insula.engine.state import RunState, UnitState, fold
from insula.errors import BadInput, Conflict, InsulaError, NotFound
from insula.kit.clock import now_ms
from insula.kit.json import Raw
from insula.runs import deadline, repository
from insula.runs.execution import end_unrunnable, launch, prepare
from insula.runs.live import LiveRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many runs were taken over, and which were left to other nodes, for want of room."""

    count: int
    left: frozenset[str]


async def recover(
    services: RunServices, run_ids: Sequence[str], left_before: frozenset[str] = frozenset()
) -> Recovered:
    """Take over runs whose owner has lapsed; children follow their parents.

    A node of a cluster takes as many as it has room for, and leaves the others to the others; for
    one sweep, and no longer: what nobody had room for was admitted before, and must go on.
    """
    gate = asyncio.Semaphore(_AT_ONCE)
    room = _Room(services, left_before, _beyond(services))

    async def one(run_id: str) -> bool:
        async with gate:
            try:
                return await _recover_one(services, run_id, room)
            except InsulaError as error:  # the next sweep tries again
                _log.warning("run.not_recovered", run_id=run_id, reason=error.message)
            except Exception:  # one run's defect must not keep the others, or the server, waiting
                _log.exception("run.not_recovered", run_id=run_id)
            return False

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(run_id)) for run_id in run_ids]
    taken = sum(task.result() for task in tasks)
    if taken:
        _log.info("runs.recovered", count=taken)
    return Recovered(taken, frozenset(room.left))


def _beyond(services: RunServices) -> int:
    """Return how many runs one sweep may take without room for them: its part of what a whole node
    had, so that the nodes together take them all at once."""
    return max(_AT_ONCE, -(-services.live.maximum // max(1, services.nodes)))


@dataclass(slots=True)
class _Room:
    """What a node takes in one sweep: all that it has room for, and some that were left before."""

    services: RunServices
    left_before: frozenset[str]
    beyond: int
    left: set[str] = field(default_factory=set)

    def may_take(self, row: RunRow) -> bool:
        """Say whether this node takes a run over. What only has to be ended needs no room, and a
        child none of its own."""
        live = self.services.live
        if not self.services.can_store:
            return False
        if row.cancel_requested_at is not None or row.depth > 0 or live.has_room(row.app_id):
            return True
        if row.id in self.left_before and self.beyond > 0:
            self.beyond -= 1
            return True
        self.left.add(row.id)
        return False


async def _recover_one(services: RunServices, run_id: str, room: _Room) -> bool:
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None or row.is_final or services.live.get(run_id) is not None:
        return False
    if services.cluster is not None and not room.may_take(row):
        return False
    if row.depth == 0:
        return await take_over(services, run_id) is not None
    if await _is_awaited(services, row):
        return False
    await end_unowned(services, run_id)
    return True


async def _is_awaited(services: RunServices, row: RunRow) -> bool:
    """Say whether a child's parent goes on with it, or may still do so."""
    assert row.parent_id is not None
    parent = await services.database.read(partial(repository.find, run_id=row.parent_id))
    if parent is None or parent.is_final:
        return False
    live = services.live.get(parent.id)
    if live is None:
        return True  # it is recovered first
    return any(unit.child == row.id and unit.open for unit in _units(live.state))


def _units(state: RunState) -> Iterator[UnitState]:
    return (unit for step in state.steps.values() for unit in step.units.values())


async def take_over(services: RunServices, run_id: str) -> LiveRun | None:
    """Go on here with a run that nobody executes; return it, live, or ``None`` if it has ended or
    is another's.

    One whose cancel was requested starts nothing: what is below it is ended first, leaves upward,
    then its own end is written.
    """
    async with services.live.alone(run_id):
        live = services.live.get(run_id)
        if live is not None:
            return live
        row = await _claim(services, run_id)
        if row is None:
            return None
        if row.cancel_requested_at is not None:
            await _end_below(services, row)
        return await resume(services, row, taken_over=True)


async def _claim(services: RunServices, run_id: str) -> RunRow | None:
    watch = services.journal.database_clock
    unit = partial(repository.claim, run_id=run_id, token=services.token, now=now_ms(), watch=watch)
    row = await services.database.write(unit)
    # Claimed under a lease that was lost meanwhile it is nobody's: the next sweep finds it.
    return row if row is None or row.owner == services.token else None


async def end_unowned(services: RunServices, run_id: str) -> None:
    """End a run as CANCELLED that nobody executes, and what is below it before."""
    async with services.live.alone(run_id):
        live = services.live.get(run_id)
        if live is None:
            row = await _claim(services, run_id)
            if row is None:
                return
            row.cancel_requested_at = row.cancel_requested_at or now_ms()
            await _end_below(services, row)
            live = await resume(services, row)
    live.stop("cancel")
    await asyncio.shield(live.finished)


async def _end_below(services: RunServices, row: RunRow) -> None:
    for child in await services.database.read(partial(repository.below, row=row)):
        if not child.is_final:
            await end_unowned(services, child.id)


async def resume(services: RunServices, row: RunRow, *, taken_over: bool = False) -> LiveRun:
    """Go on with a run that this process has just begun or taken over, from where its journal ends.

    Raises:
        InsulaError: its version cannot be run any more; the run has ended as FAILED.
        Unavailable: the database does not answer now; the run is found again.
    """
    left = services.journal.find(row.id)
    if left is not None:  # of a task of this process that ended without ending the run
        left.drop()
    events, row.seq = await services.journal.read(row.id)
    state = fold(events)
    if taken_over and row.depth == 0 and row.cancel_requested_at is None:
        deadline.take_in(row, events[-1].at if events else 0, now_ms())
        await services.database.write(partial(deadline.store, row=row))
    given, draft = await services.database.read(partial(repository.data_of, run_id=row.id))
    place = services.live.take_place(row.app_id, row.workflow_id) if row.depth == 0 else None
    with place or contextlib.nullcontext():
        try:
            runnable = await services.resolver.stored(row.workflow_id, row.version_id, draft)
            live = prepare(services, row, runnable, Raw(given or b"{}"), state, place)
            if any(unit.child and unit.open for unit in _units(state)):
                live.end_below = partial(_end_below, services, row)
        except (NotFound, Conflict, BadInput) as error:
            _log.error("run.cannot_go_on", run_id=row.id, reason=error.message)
            await end_unrunnable(services, row, state, error.message)
            raise
        return launch(services, live)
