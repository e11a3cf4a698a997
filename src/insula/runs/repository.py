"""The SQL of runs. Units and queries are plain functions of a connection."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from insula.runs.rows import COLUMNS, RunRow, run_row
from insula.storage import counters
from insula.storage.sqlite_connection import driver
from insula.storage.tables import run_data, run_events, runs

assert tuple(column.name for column in runs.columns) == COLUMNS

_ROWS_A_STATEMENT = 64
_BY_ID = select(runs).where(runs.c.id == bindparam("run_id"))
_DATA = select(run_data.c.input, run_data.c.draft).where(run_data.c.run_id == bindparam("run_id"))
_REQUEST_CANCEL = (
    update(runs)
    .where(runs.c.id == bindparam("run_id"), runs.c.ended_at.is_(None))
    .where(runs.c.cancel_requested_at.is_(None))
    .values(
        cancel_requested_at=bindparam("now"),
        cancel_requested_by=bindparam("by"),
        updated_at=bindparam("now"),
    )
)
_CLAIM = (
    update(runs)
    .where(runs.c.id == bindparam("run_id"), runs.c.ended_at.is_(None))
    .where(runs.c.owner.is_not_distinct_from(bindparam("from_owner")))
    .values(owner=bindparam("token"), updated_at=bindparam("now"))
)


class NewRun(NamedTuple):
    """A run to insert: its row, its input, and the body if it is a draft's."""

    row: RunRow
    input: bytes
    draft: bytes | None


def create_many(connection: Connection, made: Sequence[NewRun]) -> list[None]:
    """Insert runs with a handful of statements, however many there are."""
    raw = driver(connection)
    for start in range(0, len(made), _ROWS_A_STATEMENT):
        some = made[start : start + _ROWS_A_STATEMENT]
        rows = [value for new in some for value in new.row.values()]
        raw.execute(_insert_text("runs", COLUMNS, len(some)), rows)
        data = [value for new in some for value in (new.row.id, new.input, new.draft)]
        raw.execute(_insert_text("run_data", ("run_id", "input", "draft"), len(some)), data)
    for row, _, _ in made:
        if not row.hidden:
            counters.bump(connection, row.app_id, row.workflow_id, row.status, row.origin, 1)
    return [None] * len(made)


@lru_cache(256)
def _insert_text(table: str, columns: tuple[str, ...], rows: int) -> str:
    places = f"({', '.join('?' * len(columns))})"
    values = ", ".join([places] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}"  # noqa: S608  # constants


def create(
    connection: Connection,
    row: RunRow,
    given: bytes,
    draft: bytes | None,
    events: tuple[int, bytes] | None = None,
) -> None:
    """Insert a run with its input, its draft body, and the events it starts out with."""
    create_many(connection, [NewRun(row, given, draft)])
    if events is not None:
        add_events(connection, row.id, *events)


def add_events(connection: Connection, run_id: str, seq: int, events: bytes) -> None:
    """Insert events of a run that no process executes; ``seq`` is the last one's number."""
    connection.execute(insert(run_events), {"run_id": run_id, "seq": seq, "events": events})


def find(connection: Connection, run_id: str) -> RunRow | None:
    """Return a run by its id, whoever's it is."""
    row = connection.execute(_BY_ID, {"run_id": run_id}).first()
    return None if row is None else run_row(row)


def find_mine(
    connection: Connection,
    run_id: str,
    app_id: str,
    workflow_id: str | None,
    *,
    own_workflow: bool = False,
) -> RunRow | None:
    """Return a run as an app may see it.

    ``own_workflow`` admits runs of the app's own workflows only; a child that its caller could not
    have started itself is nobody's.
    """
    row = find(connection, run_id)
    if row is None or row.app_id != app_id or row.hidden:
        return None
    if workflow_id is not None and row.workflow_id != workflow_id:
        return None
    return None if own_workflow and row.workflow_app_id != app_id else row


def data_of(connection: Connection, run_id: str) -> tuple[bytes | None, bytes | None]:
    """Return a run's input and draft body, ``None`` where there is none or it was erased."""
    found = connection.execute(_DATA, {"run_id": run_id}).first()
    return (None, None) if found is None else (found.input, found.draft)


def data_of_many(
    connection: Connection, run_ids: Sequence[str]
) -> dict[str, tuple[bytes | None, bytes | None]]:
    """Return inputs and draft bodies of runs, by id."""
    columns = (run_data.c.run_id, run_data.c.input, run_data.c.draft)
    found = connection.execute(select(*columns).where(run_data.c.run_id.in_(run_ids)))
    return {run_id: (given, draft) for run_id, given, draft in found}


def request_cancel(connection: Connection, run_id: str, by: str, now: int) -> None:
    """Mark a run that is not final as to be cancelled; the first to ask is remembered."""
    connection.execute(_REQUEST_CANCEL, {"run_id": run_id, "by": by, "now": now})


def claim(
    connection: Connection, run_id: str, from_owner: str | None, token: str, now: int
) -> RunRow | None:
    """Take a run over from an owner that lapsed, or from nobody; ``None`` if another was first."""
    values = {"run_id": run_id, "from_owner": from_owner, "token": token, "now": now}
    if connection.execute(_CLAIM, values).rowcount != 1:
        return None
    return find(connection, run_id)


def begin_pending(connection: Connection, run_id: str, token: str, now: int) -> RunRow | None:
    """Take a run from the queue, unless it was cancelled or taken meanwhile."""
    found = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.owner.is_(None), runs.c.status == "PENDING")
        .where(runs.c.cancel_requested_at.is_(None))
        .values(owner=token, status="RUNNING", started_at=now, updated_at=now)
    )
    if found.rowcount != 1:
        return None
    row = find(connection, run_id)
    assert row is not None
    counters.bump(connection, row.app_id, row.workflow_id, "PENDING", row.origin, -1)
    counters.bump(connection, row.app_id, row.workflow_id, "RUNNING", row.origin, 1)
    return row


def set_retention(
    connection: Connection, run_id: str, retention: bytes | None, due: int | None, now: int
) -> None:
    """Change a run's retention and, if it has ended, when its data is due."""
    connection.execute(
        update(runs)
        .where(runs.c.id == run_id)
        .values(retention=retention, retention_due_at=due, updated_at=now)
    )


def pending(connection: Connection, limit: int) -> Sequence[tuple[str, str]]:
    """Return (app id, run id) of runs that wait for somebody to begin them, oldest first."""
    found = connection.execute(
        select(runs.c.app_id, runs.c.id)
        .where(runs.c.owner.is_(None), runs.c.ended_at.is_(None))
        .order_by(runs.c.id)
        .limit(limit)
    )
    return [(app_id, run_id) for app_id, run_id in found]


def unfinished_of(connection: Connection, root_id: str) -> list[RunRow]:
    """Return the runs of a tree, below its root, that are not final; deepest first."""
    found = connection.execute(
        select(runs)
        .where(runs.c.root_id == root_id, runs.c.depth > 0, runs.c.ended_at.is_(None))
        .order_by(runs.c.depth.desc())
    )
    return [run_row(row) for row in found]


def tree_size(connection: Connection, root_id: str) -> int:
    """Count the runs of a tree below its root."""
    return len(
        connection.execute(
            select(runs.c.id).where(runs.c.root_id == root_id, runs.c.depth > 0).limit(2_000)
        ).all()
    )


_SOME = 1_000


def unfinished_of_workflow(
    connection: Connection, workflow_id: str, not_of: str | None = None
) -> list[str]:
    """Return ids of some runs of a workflow that are not final, whoever's they are."""
    query = select(runs.c.id).where(runs.c.workflow_id == workflow_id, runs.c.ended_at.is_(None))
    if not_of is not None:
        query = query.where(runs.c.app_id != not_of)
    return list(connection.scalars(query.limit(_SOME)))


def unfinished_of_app(connection: Connection, app_id: str) -> list[str]:
    """Return ids of some runs of an app that are not final, children left to their roots."""
    query = select(runs.c.id).where(
        runs.c.app_id == app_id, runs.c.ended_at.is_(None), runs.c.depth == 0
    )
    return list(connection.scalars(query.limit(_SOME)))
