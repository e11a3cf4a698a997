"""How many runs there are, per app, workflow, status and origin: changed in the commit that
changes the rows, so that no list ever counts.

Processes that share a database count in slots of their own, so that they do not wait for each
other's commits; a count is the sum. Now and then the slots of a counter are put together.
"""

from collections.abc import Collection
from operator import eq
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, false, func, or_, select, tuple_

from insula.storage.rows import insert_rows
from insula.storage.tables import counters

Key = tuple[str, str, str, str]
Bumps = dict[Key, int]

_INFO = "counters"
_SLOT = "counter_slot"
_COLUMNS = ("app_id", "workflow_id", "status", "origin", "slot", "count")
_KEY = (counters.c.app_id, counters.c.workflow_id, counters.c.status, counters.c.origin)
_ADD = (
    "ON CONFLICT (app_id, workflow_id, status, origin, slot)"
    " DO UPDATE SET count = counters.count + excluded.count"
)


def use_slot(connection: Connection, slot: int) -> None:
    """Count in this slot on this connection; without it, in slot 0."""
    connection.info[_SLOT] = slot


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


def count_now(connection: Connection, app_id: str, status: str, but: str | None = None) -> int:
    """In a unit: return how many runs of an app have a status, those of one origin left out, with
    what this unit and others of its group have changed."""
    query = select(func.coalesce(func.sum(counters.c.count), 0)).where(
        counters.c.app_id == app_id, counters.c.status == status
    )
    if but is not None:
        query = query.where(counters.c.origin != but)
    stored = int(connection.execute(query).scalar_one())
    bumps: Bumps = connection.info.get(_INFO) or {}
    return stored + sum(
        delta
        for (app, _, of_status, origin), delta in bumps.items()
        if app == app_id and of_status == status and origin != but
    )


def by_key(connection: Connection, query: Select[Any]) -> Bumps:
    """Return what a query of counters' keys and counts finds, without those that are 0."""
    found = connection.execute(query).all()
    return {(a, w, s, o): int(number) for a, w, s, o, number in found if number}


def scattered(connection: Connection, after: Key | None, limit: int) -> list[Key]:
    """Return some counters that stand in several slots, or at 0, from the one after ``after`` on:
    whoever counts an app's runs reads all of them."""
    query = select(*_KEY).group_by(*_KEY)
    if after is not None:
        query = query.where(tuple_(*_KEY) > after)
    many = or_(func.count() > 1, func.sum(counters.c.count) == 0)
    found = connection.execute(query.having(many).order_by(*_KEY).limit(limit))
    return [(app, workflow, status, origin) for app, workflow, status, origin in found]


def gather(connection: Connection, keys: Collection[Key]) -> None:
    """In a unit: put all that stands in the slots of some counters into this process's own, and
    keep none at 0. Who counts meanwhile in a slot that goes begins it anew."""
    # Each by itself: of a list of keys SQLite makes a table, and goes through all counters for it.
    which = or_(false(), *(and_(*map(eq, _KEY, key)) for key in keys))
    taken = delete(counters).where(which).returning(*_KEY, counters.c.count)
    for app_id, workflow_id, status, origin, number in connection.execute(taken).all():
        bump(connection, app_id, workflow_id, status, origin, number)


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
    slot = connection.info.get(_SLOT, 0)
    # In order, so that two processes in one slot do not wait for each other crosswise.
    changed = [(*key, slot, delta) for key, delta in sorted(bumps.items()) if delta]
    insert_rows(connection, counters, _COLUMNS, changed, _ADD)
