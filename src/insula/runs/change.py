"""Changing what becomes of a run's data: its retention, and erasing it now."""

import asyncio
from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection

from insula.errors import Conflict, Unavailable
from insula.kit import json
from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_TOLD_WITHIN = 1.0
_ENDS_WITHIN = 5.0
"""Seconds that the end of a run may take to be stored, once it has begun to be."""
_AT_ONCE = json.encode({"max_age_in_seconds": 0})


async def change_retention(services: RunServices, row: RunRow, chosen: bytes | None) -> None:
    """Change a run's retention; what is due by it now is erased at once.

    The runs below it keep theirs, unless this one is stricter.

    Raises:
        Conflict: the data was erased already.
        Unavailable: whoever executes the run does not say that it knows.
    """
    if row.erased_at is not None:
        raise Conflict("The run's data was erased already")
    obsolete: list[str] = []
    gone: list[str] = []
    unit = partial(_change, row.id, chosen, services.retention, obsolete, gone)
    told: set[str] = set()
    while True:
        # What goes on may end meanwhile by what it was to be before, and begin others: so it is
        # told, and then all is looked at again.
        going = [each for each in await services.database.write(unit) if each.id not in told]
        services.metrics.note_erased(len(gone))
        await services.files.remove(obsolete)
        if not going:
            return
        for each in going:
            await _tell(services, each)
            told.add(each.id)


def _change(
    run_id: str,
    chosen: bytes | None,
    default: int,
    obsolete: list[str],
    gone: list[str],
    connection: Connection,
) -> list[RunRow]:
    """Store a new retention of a run and of those below it; return what of these goes on.

    Fills ``gone`` with the runs that it erased, ``obsolete`` with their files.
    """
    obsolete.clear()
    gone.clear()
    now = now_ms()
    # Whoever takes the run up now, at whichever node, reads it before this or after it.
    current = repository.find_locked(connection, run_id)
    if current is None:
        return []
    kept = _is_awaited(connection, current)
    going = []
    for each in [current, *repository.below(connection, current, locked=True)]:
        own = each.id == run_id
        each.retention = chosen if own else retention.stricter(each.retention, chosen, default)
        due = None
        if each.ended_at is not None:
            held = kept and each.depth > 0
            due = retention.due_at(each.retention, each.status, each.ended_at, default, held=held)
        is_due = due is not None and due <= now
        if each.erased_at is not None:
            if own and not is_due:
                raise Conflict("The run's data was erased already")
            continue
        repository.set_retention(connection, each.id, each.retention, due, now)
        if each.ended_at is None:
            going.append(each)
        elif is_due and not kept:
            obsolete += retention.erase(connection, [each.id], now)
            gone.append(each.id)
    return going


async def _tell(services: RunServices, row: RunRow) -> None:
    """Tell whoever executes a run what is stored of its retention.

    Raises:
        Unavailable: nobody says that it was heard, and the run has not ended.
    """
    if row.owner is None or await take_retention(services, row):
        return
    cluster = services.cluster if row.owner != services.token else None
    if cluster and await cluster.ask_owner(row.owner, "retention", row.id, _TOLD_WITHIN):
        return
    found = await services.database.read(partial(repository.find, run_id=row.id))
    if found is not None and not found.is_final:
        raise Unavailable("The node that executes the run does not answer; ask again", (), 2)


async def take_retention(services: RunServices, row: RunRow) -> bool:
    """Let a run of this process end by the retention that ``row`` has; say whether it will, or has
    ended."""
    live = services.live.get(row.id)
    if live is None:
        return row.is_final
    live.row.retention = row.retention  # its end is computed from the row in memory
    if live.ending:  # maybe it was already: whoever asked looks at what is stored
        await asyncio.wait([live.finished], timeout=_ENDS_WITHIN)
        return live.finished.done()
    return True


def _is_awaited(connection: Connection, row: RunRow) -> bool:
    """Say whether the data of the runs of a tree has to stay, due or not: its root goes on.

    Should the process die before a parent has stored what its child gave, whoever recovers it
    reads that again.
    """
    root = repository.find(connection, row.root_id) if row.depth else row
    return root is not None and root.ended_at is None


async def delete_run(services: RunServices, row: RunRow) -> None:
    """Erase the data of a run, and of the runs below it: now, or when its root has ended.

    Raises:
        Conflict: the run has not ended.
    """
    if not row.is_final:
        raise Conflict("The run has not ended; cancel it or wait, then delete it")
    now = now_ms()
    gone: list[str] = []

    def unit(connection: Connection) -> Sequence[str]:
        gone.clear()
        inside = [row, *repository.below(connection, row)]
        ids = [each.id for each in inside if each.erased_at is None and each.is_final]
        if not _is_awaited(connection, row):
            gone.extend(ids)
            return retention.erase(connection, ids, now) if ids else []
        for run_id in ids:
            repository.set_retention(connection, run_id, _AT_ONCE, now, now)
        return []

    files = await services.database.write(unit)
    services.metrics.note_erased(len(gone))
    await services.files.remove(files)
