"""Going on with runs whose process died: take over, fold, continue, or end what was cancelled."""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from insula.engine.state import fold
from insula.kit.clock import now_ms
from insula.kit.json import Raw
from insula.runs import repository
from insula.runs.execution import launch, prepare
from insula.runs.live import LiveRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)


async def recover(services: RunServices, run_ids: Sequence[str]) -> int:
    """Take over runs whose owner has lapsed; children follow their roots. Returns how many."""
    taken = 0
    for run_id in run_ids:
        row = await services.database.read(partial(repository.find, run_id=run_id))
        if row is None or row.is_final or services.live.get(run_id) is not None:
            continue
        if row.depth > 0:
            await _recover_child(services, row)
        elif await take_over(services, row) is not None:
            taken += 1
    if taken:
        _log.info("runs.recovered", count=taken)
    return taken


async def take_over(services: RunServices, row: RunRow) -> LiveRun | None:
    """Take over a run from a lapsed owner, or from nobody; ``None`` if another was first.

    Of one whose cancel was requested, the children are ended first, leaves upward.
    """
    claimed = await _claim(services, row)
    if claimed is None:
        return None
    if claimed.cancel_requested_at is not None:
        await end_children(services, claimed.root_id, below=claimed.depth)
    return await resume_claimed(services, claimed)


async def end_children(services: RunServices, root_id: str, below: int) -> None:
    """End the runs of a tree that lie deeper than ``below`` and that no process executes."""
    left = await services.database.read(partial(repository.unfinished_of, root_id=root_id))
    for row in left:
        if row.depth > below and services.live.get(row.id) is None:
            await _end_child(services, row)


async def _recover_child(services: RunServices, row: RunRow) -> None:
    """End a child whose root is over: nobody will go on with it. Others follow their parents."""
    root = await services.database.read(partial(repository.find, run_id=row.root_id))
    if root is None or root.is_final:
        await _end_child(services, row)


async def _end_child(services: RunServices, row: RunRow) -> None:
    claimed = await _claim(services, row)
    if claimed is not None:
        claimed.cancel_requested_at = claimed.cancel_requested_at or now_ms()
        live = await resume_claimed(services, claimed)
        await asyncio.shield(live.finished)


async def _claim(services: RunServices, row: RunRow) -> RunRow | None:
    unit = partial(
        repository.claim,
        run_id=row.id,
        from_owner=row.owner,
        token=services.token,
        now=now_ms(),
    )
    return await services.database.write(unit)


async def resume_claimed(services: RunServices, row: RunRow) -> LiveRun:
    """Go on with a run that this process has just taken over.

    One whose cancel was requested starts nothing: its end is written.
    """
    events, seq = await services.journal.read(row.id)
    row.seq = seq
    given, draft = await services.database.read(partial(repository.data_of, run_id=row.id))
    runnable = await services.resolver.stored(row.workflow_id, row.version_id, draft)
    live = prepare(services, row, runnable, Raw(given or b"{}"), fold(events))
    return launch(services, live)
