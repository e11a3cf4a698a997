"""What becomes of runs whose workflow or app is deleted: their data goes at once, and with the app
their rows, too.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Connection, and_, or_, select, update

from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.storage.database import Database
from insula.storage.tables import apps, runs

_SOME = 500


async def let_go(database: Database, app_id: str, workflow_id: str | None = None) -> None:
    """Let the data of an app's ended runs be due, of one workflow or all, however long it was to
    be kept."""
    after: str | None = ""
    while after is not None:
        unit = partial(_due, app_id=app_id, workflow_id=workflow_id, after=after)
        after = await database.write(unit)


def _due(connection: Connection, *, app_id: str, workflow_id: str | None, after: str) -> str | None:
    query = select(runs.c.id).where(runs.c.app_id == app_id, runs.c.id > after)
    if workflow_id is not None:
        query = query.where(runs.c.workflow_id == workflow_id)
    found = list(connection.scalars(query.order_by(runs.c.id).limit(_SOME)))
    due_now(connection, found)
    return found[-1] if len(found) == _SOME else None


def due_now(connection: Connection, run_ids: Sequence[str]) -> None:
    """In a unit: let the data of runs that have ended, and of all that ran below them, be due now,
    however long it was to be kept."""
    now = now_ms()
    later = or_(runs.c.retention_due_at.is_(None), runs.c.retention_due_at > now)
    kept = and_(runs.c.ended_at.is_not(None), runs.c.erased_at.is_(None), later)
    for at in range(0, len(run_ids), _SOME):
        some = run_ids[at : at + _SOME]
        inside = [*some, *repository.ids_below(connection, some)]
        for start in range(0, len(inside), _SOME):
            due = update(runs).where(runs.c.id.in_(inside[start : start + _SOME]), kept)
            connection.execute(due.values(retention_due_at=now, updated_at=now))


def remove_rows(connection: Connection, app_id: str, limit: int) -> int:
    """Remove rows of erased runs of an app that is gone; their totals a day stay. Returns how many
    went, at most ``limit``."""
    known = select(apps.c.id).where(apps.c.id == app_id, apps.c.deleting.is_not(False))
    if connection.execute(known).first() is not None:
        return 0
    query = select(*retention.COUNTED).where(runs.c.app_id == app_id, runs.c.erased_at.is_not(None))
    gone = connection.execute(query.limit(limit)).all()
    retention.count_out(connection, gone)
    return len(gone)
