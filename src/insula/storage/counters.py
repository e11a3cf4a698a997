"""How many runs there are, per app, workflow, status and origin: changed in the commit that
changes the rows, so that no list ever counts.
"""

from collections.abc import Collection

from sqlalchemy import Connection, func, select

from insula.storage.dialect import driver
from insula.storage.tables import counters

Key = tuple[str, str, str, str]
Bumps = dict[Key, int]

_INFO = "counters"
_ROWS_A_STATEMENT = 500


def bump(
    connection: Connection,
    app_id: str,
    workflow_id: str,
    status: str,
    origin: str,
    delta: int = 1,
) -> None:
    """Change a counter by ``delta`` when the group of this unit is committed.

    The changes of all units of a group are added up first; those of a unit that fails are not
    among them.
    """
    bumps: Bumps | None = connection.info.get(_INFO)
    if bumps is None:
        bumps = connection.info[_INFO] = {}
    key = (app_id, workflow_id, status, origin)
    bumps[key] = bumps.get(key, 0) + delta


def count(
    connection: Connection,
    app_id: str,
    workflow_id: str | None = None,
    status: str | Collection[str] | None = None,
    origin: str | Collection[str] | None = None,
) -> int:
    """Return how many runs there are of an app; ``None`` means any."""
    query = select(func.coalesce(func.sum(counters.c.count), 0)).where(counters.c.app_id == app_id)
    if workflow_id is not None:
        query = query.where(counters.c.workflow_id == workflow_id)
    for column, wanted in ((counters.c.status, status), (counters.c.origin, origin)):
        if isinstance(wanted, str):
            query = query.where(column == wanted)
        elif wanted is not None:
            query = query.where(column.in_(sorted(wanted)))
    return int(connection.execute(query).scalar_one())


def snapshot(connection: Connection) -> Bumps:
    """Return a copy of the changes not yet written, to go back to if the next unit fails."""
    return dict(connection.info.get(_INFO) or {})


def restore(connection: Connection, bumps: Bumps) -> None:
    """Forget every change made since ``snapshot``."""
    connection.info[_INFO] = bumps


def flush(connection: Connection) -> None:
    """Write the changes, one upsert for all; called by the writer before it commits."""
    bumps: Bumps | None = connection.info.get(_INFO)
    if not bumps:
        return
    connection.info[_INFO] = {}
    changed = [(*key, delta) for key, delta in bumps.items() if delta]
    for start in range(0, len(changed), _ROWS_A_STATEMENT):
        rows = changed[start : start + _ROWS_A_STATEMENT]
        driver(connection).execute(_upsert(len(rows)), [value for row in rows for value in row])


def _upsert(rows: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?)"] * rows)
    return (
        f"INSERT INTO counters (app_id, workflow_id, status, origin, count) VALUES {values}"  # noqa: S608  # placeholders alone
        " ON CONFLICT (app_id, workflow_id, status, origin)"
        " DO UPDATE SET count = count + excluded.count"
    )
