"""Changing what becomes of a run's data: its retention, and erasing it now."""

from dataclasses import replace

from sqlalchemy import Connection

from insula.errors import Conflict
from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.auth import unknown


async def change_retention(services: RunServices, row: RunRow, chosen: bytes | None) -> RunRow:
    """Change a run's retention; of an ended run, data that is due now is erased at once.

    Raises:
        Conflict: the data was erased already.
    """
    if row.erased_at is not None:
        raise Conflict("The run's data was erased already")
    live = services.live.get(row.id)
    if live is not None:  # its end is computed from the row in memory
        live.row.retention = chosen
    now = now_ms()
    obsolete: list[str] = []

    def unit(connection: Connection) -> RunRow | None:
        current = repository.find(connection, row.id)
        if current is None:
            return None
        current.retention = chosen
        due = None
        if current.ended_at is not None:
            due = retention.due_at(current, current.status, current.ended_at, services.retention)
        repository.set_retention(connection, row.id, chosen, due, now)
        if due is not None and due <= now:
            obsolete[:] = retention.erase(connection, [row.id], now)
        return repository.find(connection, row.id)

    changed = await services.database.write(unit)
    await services.files.remove(obsolete)
    if changed is None:
        raise unknown()
    return changed


async def delete_run(services: RunServices, row: RunRow) -> RunRow:
    """Erase a run's data now.

    Raises:
        Conflict: the run has not ended.
    """
    if not row.is_final:
        raise Conflict("The run has not ended; cancel it or wait, then delete it")
    now = now_ms()
    files = await services.database.write(lambda c: retention.erase(c, [row.id], now))
    await services.files.remove(files)
    return replace(row, erased_at=now)
