"""Finds what is left of apps that are gone: what a request that was under way has stored since."""

from sqlalchemy import Connection, Index, Table, delete, exists, func, or_, select, text

from insula.storage.tables import apps, counters, metadata, runs, workflows

_ONLY = {"workflows": "NOT deleted"}
"""What counts in a table, where not everything does: callers' runs show versions of workflows that
are deleted."""
_NOT_THEIRS = frozenset({"counters"})
"""Tables in whose column of apps other names stand, too."""


def _begins(index: Index) -> bool:
    whole = index.dialect_options["sqlite"]["where"] is None
    return whole and next(iter(index.columns)).name == "app_id"


def _is_of_apps(table: Table) -> bool:
    """Whether a table's rows are found by their app: what is not hangs on something that is."""
    keyed = next(iter(table.primary_key.columns)).name == "app_id"
    return "app_id" in table.c and (keyed or any(_begins(index) for index in table.indexes))


TABLES = tuple(
    table.name
    for table in metadata.sorted_tables
    if _is_of_apps(table) and table.name not in _NOT_THEIRS
)
"""Where something of an app may stand."""

# Distinct apps by jumping along an index: one step an app, however much each has.
_LEFT = """
    WITH RECURSIVE found(app_id) AS (
        SELECT min(app_id) FROM {table} WHERE app_id > '' AND {only}
        UNION ALL
        SELECT (SELECT min(app_id) FROM {table} WHERE app_id > found.app_id AND {only})
        FROM found WHERE found.app_id IS NOT NULL
    )
    SELECT app_id FROM found
    WHERE app_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM apps WHERE apps.id = found.app_id AND deleting IS NOT FALSE
    )
    LIMIT :most
"""


def left(connection: Connection, table: str, most: int) -> list[str]:
    """Return ids of apps that are gone, and of which something stands in a table."""
    query = _LEFT.format(table=table, only=_ONLY.get(table, "1 = 1"))
    return list(connection.scalars(text(query), {"most": most}))


def forget_counts(connection: Connection, app_id: str) -> bool:
    """Remove the counters of an app that is gone, once it has no runs any more; say whether that
    is so."""
    known = select(apps.c.id).where(apps.c.id == app_id, apps.c.deleting.is_not(False))
    for query in (known, select(runs.c.id).where(runs.c.app_id == app_id)):
        if connection.execute(query.limit(1)).first() is not None:
            return False
    mine = or_(counters.c.app_id == app_id, counters.c.workflow_id == app_id)
    columns = [column for column in counters.primary_key.columns if column.name != "slot"]
    some = select(*columns).where(mine).group_by(*columns).having(func.sum(counters.c.count) != 0)
    if connection.execute(some.limit(1)).first() is None:
        connection.execute(delete(counters).where(mine))
    return True


def forget_rows(connection: Connection) -> None:
    """Remove the rows of apps that are gone, and of whose workflows none is shown any more."""
    shown = exists().where(workflows.c.app_id == apps.c.id)
    connection.execute(delete(apps).where(text("NOT deleting"), ~shown))
