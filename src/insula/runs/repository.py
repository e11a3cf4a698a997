"""The SQL of runs. Units and queries are plain functions of a connection."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from insula.errors import TooMany
from insula.journal.database_clock import DatabaseClock
from insula.journal.lease import lives
from insula.kit.ids import first_id
from insula.runs.live import app_is_full
from insula.runs.rows import COLUMNS, RunRow, run_row
from insula.storage import counters
from insula.storage.dialect import by_index, driver
from insula.storage.rows import insert_rows
from insula.storage.tables import run_data, run_events, runs

assert tuple(column.name for column in runs.columns) == COLUMNS

_INSERT_EVENTS = insert(run_events)
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
_OWNER = select(runs.c.owner).where(runs.c.id == bindparam("run_id"), runs.c.ended_at.is_(None))
_CLAIM = (
    update(runs)
    .where(runs.c.id == bindparam("run_id"), runs.c.ended_at.is_(None))
    .where(runs.c.owner.is_not_distinct_from(bindparam("seen")))
    .values(owner=bindparam("token"), updated_at=bindparam("now"))
)


class NewRun(NamedTuple):
    """A run to insert: its row, its input, the body if it is a draft's, and, if it does not begin
    at the beginning, the events it starts out with; their number is the row's ``seq``."""

    row: RunRow
    input: bytes
    draft: bytes | None
    events: bytes | None = None


def create_many(connection: Connection, made: Sequence[NewRun]) -> list[None]:
    """Insert runs with a handful of statements, however many there are."""
    insert_rows(connection, runs, COLUMNS, [tuple(new.row.values()) for new in made])
    data = [(new.row.id, new.input, new.draft) for new in made]
    insert_rows(connection, run_data, ("run_id", "input", "draft"), data)
    for row, _, _, events in made:
        if events is not None:
            row_of_events = {"run_id": row.id, "seq": row.seq, "events": events}
            connection.execute(_INSERT_EVENTS, row_of_events)
        if not row.hidden:
            counters.bump(connection, row.app_id, row.workflow_id, row.status, row.origin, 1)
    return [None] * len(made)


def find(connection: Connection, run_id: str) -> RunRow | None:
    """Return a run by its id, whoever's it is."""
    row = connection.execute(_BY_ID, {"run_id": run_id}).first()
    return None if row is None else run_row(row)


def find_locked(connection: Connection, run_id: str) -> RunRow | None:
    """Return a run that nobody else changes before this unit's end."""
    row = connection.execute(_BY_ID.with_for_update(), {"run_id": run_id}).first()
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
    connection: Connection, run_id: str, token: str, now: int, watch: DatabaseClock
) -> RunRow | None:
    """Take a run over from nobody, or from an owner that lapsed; ``None`` if it has ended, or its
    owner lives.

    Only from the very owner that was seen dead, which stays dead: of two who claim one wins, and
    neither wins against an owner that comes back and has taken its runs under another token.
    """
    seen = connection.execute(_OWNER, {"run_id": run_id}).first()
    if seen is None:
        return None
    if seen.owner not in (None, token) and lives(connection, seen.owner, watch):
        return None
    values = {"run_id": run_id, "token": token, "now": now, "seen": seen.owner}
    if connection.execute(_CLAIM, values).rowcount != 1:
        return None
    return find(connection, run_id)


def find_with_owner(
    connection: Connection, run_id: str, watch: DatabaseClock
) -> tuple[RunRow | None, bool]:
    """Return a run, and whether its owner lives."""
    row = find(connection, run_id)
    owner = None if row is None else row.owner
    return row, owner is not None and lives(connection, owner, watch)


def begin_pending(
    connection: Connection, run_id: str, token: str, now: int, app_max: int | None = None
) -> RunRow | None:
    """Take a run from the queue, unless it was cancelled or taken meanwhile.

    Raises:
        TooMany: its app has as many live runs as ``app_max`` allows.
    """
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
    check_app(connection, row.app_id, app_max)
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


def check_app(connection: Connection, app_id: str, maximum: int | None) -> None:
    """In a unit that begins a run: check that its app may have one more live run.

    No other such unit runs beside it, at whichever node, and those of its own group are counted
    too. Children run in their root's place.

    Raises:
        TooMany: it has ``maximum`` already.
    """
    if maximum is None:
        return
    live = counters.count_now(connection, app_id, "RUNNING", but="WORKFLOW")
    if live >= maximum:
        raise app_is_full(maximum)


def check_waiting(connection: Connection, app_id: str, maximum: int) -> None:
    """In a unit that adds one: check that one more run of an app may wait to begin. Those that
    others of its group add are counted, too.

    Raises:
        TooMany: ``maximum`` of them wait already.
    """
    if counters.count_now(connection, app_id, "PENDING") >= maximum:
        raise TooMany(
            f"{maximum} runs of this app wait to begin, the limit (INSULA_QUEUE_MAX). "
            "Try again later.",
            retry_after=5,
        )


def pending(connection: Connection, after: str, limit: int) -> list[tuple[str, str]]:
    """Return (app id, run id) of runs that wait for somebody to begin them, oldest first, from the
    one after ``after``."""
    found = connection.execute(
        select(runs.c.app_id, runs.c.id)
        .where(runs.c.owner.is_(None), runs.c.ended_at.is_(None), runs.c.id > after)
        .order_by(runs.c.id)
        .limit(limit)
    )
    return [(app_id, run_id) for app_id, run_id in found]


def owned_by(connection: Connection, token: str) -> list[str]:
    """Return the ids of the runs that have not ended and stand under this owner."""
    query = select(runs.c.id).where(runs.c.owner == token, runs.c.ended_at.is_(None))
    return list(connection.scalars(query))


def any_since(connection: Connection, since: int) -> bool:
    """Say whether any run is live or waits, at whichever node, or was made since then (Unix ms)."""
    live = select(runs.c.id).where(runs.c.ended_at.is_(None)).limit(1)
    made = select(runs.c.id).where(runs.c.id >= first_id("run", since)).limit(1)
    return any(connection.execute(query).first() is not None for query in (live, made))


def below(connection: Connection, row: RunRow, *, locked: bool = False) -> list[RunRow]:
    """Return the children of a run, their children and so on, deepest first; ``locked``: nobody
    else changes any of the tree before this unit's end."""
    query = select(runs).where(runs.c.root_id == row.root_id, runs.c.depth > 0)
    query = query.order_by(runs.c.depth, runs.c.id)
    found = connection.execute(query.with_for_update() if locked else query)
    parents = {row.id}
    inside = []
    for child in map(run_row, found):
        if child.parent_id in parents:
            parents.add(child.id)
            inside.append(child)
    return inside[::-1]


def ids_below(connection: Connection, run_ids: Sequence[str]) -> list[str]:
    """Return the ids of the children of some runs, their children and so on, whosever they are."""
    roots = select(runs.c.root_id).where(runs.c.id.in_(run_ids))
    found = connection.execute(
        select(runs.c.id, runs.c.parent_id)
        .where(runs.c.root_id.in_(roots), runs.c.depth > 0)
        .order_by(runs.c.depth)
    )
    inside = dict.fromkeys(run_ids)
    for run_id, parent_id in found:
        if parent_id in inside:
            inside[run_id] = None
    return list(inside)[len(run_ids) :]


def tree_size(connection: Connection, root_id: str) -> int:
    """Count the runs of a tree below its root."""
    query = select(func.count()).where(runs.c.root_id == root_id, runs.c.depth > 0)
    return connection.execute(query).scalar_one()


def unfinished_of_workflow(
    connection: Connection, workflow_id: str, not_of: str | None, limit: int
) -> list[str]:
    """Return ids of some runs of a workflow that are not final, whoever's they are."""
    # What is not final is little, beside all that ever ran; SQLite would not guess it.
    index = by_index(connection, "runs_live")
    query = f"SELECT id FROM runs {index} WHERE ended_at IS NULL AND workflow_id = ?"  # noqa: S608  # the name of an index
    others = "" if not_of is None else " AND app_id <> ?"
    values = [workflow_id, *([] if not_of is None else [not_of]), limit]
    rows = driver(connection).execute(f"{query}{others} LIMIT ?", values)
    return [run_id for (run_id,) in rows.fetchall()]
