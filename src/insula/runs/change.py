"""Changing what becomes of a run's data: its retention, and erasing it now."""

from functools import partial

from sqlalchemy import Connection

from insula.errors import Conflict, Unavailable
from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.runs.cluster import Cluster
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_TOLD_WITHIN = 1.0


async def change_retention(services: RunServices, row: RunRow, chosen: bytes | None) -> None:
    """Change a run's retention; what is due by it now is erased at once.

    The runs below it keep theirs, unless this one is stricter.

    Raises:
        Conflict: the data was erased already.
    """
    if row.erased_at is not None:
        raise Conflict("The run's data was erased already")
    now = now_ms()
    obsolete: list[str] = []

    def unit(connection: Connection) -> dict[str, RunRow]:
        obsolete.clear()
        current = repository.find(connection, row.id)
        changed: dict[str, RunRow] = {}
        for each in [] if current is None else [current, *repository.below(connection, current)]:
            own = each.id == row.id
            new = chosen if own else retention.stricter(each.retention, chosen, services.retention)
            each.retention = new
            if each.ended_at is None:
                changed[each.id] = each
            obsolete.extend(_set(connection, each, services.retention, now))
        return changed

    for run_id, changed in (await services.database.write(unit)).items():
        live = services.live.get(run_id)
        if live is not None:  # its end is computed from the row in memory
            live.row.retention = changed.retention
        elif changed.owner is not None and services.cluster is not None:
            await _tell_owner(services, services.cluster, changed)
    await services.files.remove(obsolete)


async def _tell_owner(services: RunServices, cluster: Cluster, row: RunRow) -> None:
    assert row.owner is not None
    if await cluster.ask_owner(row.owner, "retention", row.id, _TOLD_WITHIN):
        return
    found = await services.database.read(partial(repository.find, run_id=row.id))
    if found is not None and not found.is_final:
        raise Unavailable("The node that executes the run does not answer; ask again", (), 2)


def _set(connection: Connection, row: RunRow, default: int, now: int) -> list[str]:
    """Store a run's new retention; return the files to remove if its data is due."""
    if row.erased_at is not None:
        return []
    due = None
    if row.ended_at is not None:
        due = retention.due_at(row, row.status, row.ended_at, default)
    repository.set_retention(connection, row.id, row.retention, due, now)
    if due is None or due > now:
        return []
    return retention.erase(connection, [row.id], now)


async def delete_run(services: RunServices, row: RunRow) -> None:
    """Erase the data of a run, and of the runs below it, now.

    Raises:
        Conflict: the run has not ended.
    """
    if not row.is_final:
        raise Conflict("The run has not ended; cancel it or wait, then delete it")
    now = now_ms()

    def unit(connection: Connection) -> list[str]:
        kept = [row, *repository.below(connection, row)]
        ids = [each.id for each in kept if each.erased_at is None and each.is_final]
        return retention.erase(connection, ids, now) if ids else []

    await services.files.remove(await services.database.write(unit))
