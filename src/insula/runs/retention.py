"""How long a run's data stays, and erasing it when it is due."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, select, update

from insula.engine.credits import bounded_price
from insula.files.repository import delete_run_files
from insula.kit import json
from insula.kit.clock import DAY_MS
from insula.kit.ids import first_id
from insula.storage import counters
from insula.storage.dialect import driver, insert, is_postgres
from insula.storage.rows import delete_rows, matching, parts, update_rows
from insula.storage.tables import daily_totals, deliveries, files, run_data, run_events, runs

KEEP = -1

HELD_MS = DAY_MS
"""For so long after its end a child whose root is live is not looked at, even if it is due: a tree
may have a thousand of them, and none could be erased yet."""


def due_at(
    retention: bytes | None, status: str, ended_at: int, default: int, *, held: bool = False
) -> int | None:
    """Return when a run's data is due (Unix ms), ``None`` if it is kept for ever.

    ``default`` is the installation's, in seconds; ``preserve_on_failure`` keeps FAILED runs;
    ``held`` is for a child whose root is live: not before ``HELD_MS``, unless the root lets it go.
    """
    chosen = {} if retention is None else json.decode(retention)
    if status == "FAILED" and chosen.get("preserve_on_failure"):
        return None
    seconds = chosen.get("max_age_in_seconds", default)
    if seconds == KEEP:
        return None
    return ended_at + max(int(seconds * 1000), HELD_MS if held else 0)


def stricter(own: bytes | None, parent: bytes | None, default: int) -> bytes | None:
    """Return the retention of a child: the shorter of its workflow's and its parent's."""
    if own is None and parent is None:
        return None
    both = [{} if given is None else json.decode(given) for given in (own, parent)]
    seconds = [given.get("max_age_in_seconds", default) for given in both]
    chosen: dict[str, Any] = {
        "max_age_in_seconds": min((s for s in seconds if s != KEEP), default=KEEP)
    }
    if all(given.get("preserve_on_failure") for given in both):
        chosen["preserve_on_failure"] = True
    return json.encode(chosen)


_DUE = """
    SELECT id FROM runs
    WHERE erased_at IS NULL AND retention_due_at <= {now} AND ended_at IS NOT NULL
    AND (depth = 0 OR NOT EXISTS (
        SELECT 1 FROM runs AS root WHERE root.id = runs.root_id AND root.ended_at IS NULL
    ))
    ORDER BY retention_due_at LIMIT ?
"""
_DUE_HERE = _DUE.format(now="?")
# The database's clock, too, has to have come so far: a node whose own is ahead would erase what it
# must not, and nothing brings that back.
_DUE_THERE = _DUE.format(now="LEAST(?::bigint, (extract(epoch FROM now()) * 1000)::bigint)")
# On PostgreSQL as one statement. The ids go from part to part as an array, for
# which the planner takes each row by its index, however many it expects.
_ERASE_DUE = f"""
    WITH due AS MATERIALIZED ({_DUE_THERE} FOR UPDATE OF runs SKIP LOCKED),
    data AS (DELETE FROM run_data WHERE run_id = ANY(ARRAY(SELECT id FROM due))),
    journal AS (DELETE FROM run_events WHERE run_id = ANY(ARRAY(SELECT id FROM due))),
    erased AS (
        UPDATE runs SET erased_at = ?, updated_at = ?, options = convert_to('{{}}', 'UTF8'),
        error = CASE WHEN error IS NOT NULL THEN '' END
        WHERE id = ANY(ARRAY(SELECT id FROM due))
    )
    SELECT id FROM due
"""  # noqa: S608  # both parts are texts of this page
_ERASED = ("erased_at", "options", "updated_at")


class Erased(NamedTuple):
    """How many runs were erased, and the ids of files whose bytes are to be removed."""

    runs: int
    files: list[str]


def erase_due(connection: Connection, now: int, limit: int) -> Erased:
    """Erase the data of up to ``limit`` runs that are due; of children only when their root has
    ended. On PostgreSQL they are due by its clock as well.

    A unit that may run aside: several processes do not erase the same runs, nor wait for each
    other.
    """
    if is_postgres(connection):
        due = _erase_due_at_once(connection, now, limit)
    else:
        found = driver(connection).execute(_DUE_HERE, (now, limit)).fetchall()
        due = [run_id for (run_id,) in found]
        _erase_rows(connection, due, now)
    return Erased(len(due), _erase_around(connection, due) if due else [])


def _erase_due_at_once(connection: Connection, now: int, limit: int) -> list[str]:
    raw = driver(connection)
    # While its figures do not know yet that many are due, the planner would collect all of them in
    # another order, and sort them, for each batch.
    raw.execute("SET LOCAL enable_sort TO off")
    return [run_id for (run_id,) in raw.execute(_ERASE_DUE, (now, limit, now, now)).fetchall()]


def let_go_below(connection: Connection, root_id: str, default: int) -> None:
    """With the end of a root: let the data of what is below it be due when it is."""
    held = runs.c.retention_due_at == runs.c.ended_at + HELD_MS
    below = select(runs.c.id, runs.c.retention, runs.c.status, runs.c.ended_at).where(
        runs.c.root_id == root_id, runs.c.depth > 0, runs.c.erased_at.is_(None), held
    )
    due = [
        (run_id, due_at(retention, status, ended_at, default))
        for run_id, retention, status, ended_at in connection.execute(below).all()
    ]
    for some in parts(connection, due):
        update_rows(connection, runs, ("id",), ("retention_due_at",), some, "true")


def due_below(connection: Connection, root_id: str, now: int) -> list[str]:
    """Return the ended runs below a root whose data is due, and was kept for the root alone."""
    query = select(runs.c.id).where(runs.c.root_id == root_id, runs.c.depth > 0)
    due = query.where(runs.c.erased_at.is_(None), runs.c.retention_due_at <= now)
    return list(connection.scalars(due.where(runs.c.ended_at.is_not(None))))


def erase(connection: Connection, run_ids: list[str], now: int) -> list[str]:
    """Erase the data of ended runs: inputs, outputs, logs, errors, events, files."""
    _erase_rows(connection, run_ids, now)
    return _erase_around(connection, run_ids)


def _erase_rows(connection: Connection, run_ids: list[str], now: int) -> None:
    """Erase what stands with the runs themselves; the same as ``_ERASE_DUE`` does."""
    delete_rows(connection, run_data, "run_id", run_ids)
    delete_rows(connection, run_events, "run_id", run_ids)
    for some in parts(connection, run_ids):
        values = [(run_id, now, b"{}", now) for run_id in some]
        update_rows(connection, runs, ("id",), _ERASED, values, "true", ())
        told = [(run_id, "") for run_id in some]
        update_rows(connection, runs, ("id",), ("error",), told, "runs.error IS NOT NULL", ())


def _erase_around(connection: Connection, run_ids: list[str]) -> list[str]:
    """Erase what others keep of the runs; return the files whose bytes are to be removed."""
    if told := matching(connection, deliveries, "thing_id", "thing_id", run_ids):
        # What is still to be told is erased as soon as it was.
        mine = and_(deliveries.c.thing_id.in_(set(told)), deliveries.c.next_at.is_(None))
        connection.execute(update(deliveries).where(mine).values(body=None))
    held = matching(connection, files, "run_id", "run_id", run_ids)
    return delete_run_files(connection, list(set(held))) if held else []


class Old(NamedTuple):
    """Of some rows that follow each other: which belong to erased runs, and the last one's id,
    ``None`` where there are no more."""

    erased: list[str]
    last: str | None


def find_old(connection: Connection, before: int, after: str, limit: int) -> Old:
    """Look at up to ``limit`` rows of runs that were made before a time, from the one after
    ``after`` on."""
    query = select(runs.c.id, runs.c.erased_at).where(
        runs.c.id > after, runs.c.id < first_id("run", before)
    )
    found = connection.execute(query.order_by(runs.c.id).limit(limit)).all()
    erased = [run_id for run_id, erased_at in found if erased_at is not None]
    return Old(erased, found[-1].id if len(found) == limit else None)


def remove_rows(connection: Connection, run_ids: Sequence[str]) -> None:
    """Remove the rows of erased runs; their totals a day stay."""
    gone = select(*COUNTED).where(runs.c.id.in_(run_ids), runs.c.erased_at.is_not(None))
    count_out(connection, connection.execute(gone).all())


COUNTED = (
    runs.c.id,
    runs.c.app_id,
    runs.c.workflow_id,
    runs.c.status,
    runs.c.origin,
    runs.c.hidden,
    runs.c.credits,
    runs.c.created_at,
    runs.c.erased_at,
)
"""The columns that ``count_out`` needs."""


def count_out(connection: Connection, gone: Sequence[Any]) -> None:
    """Remove rows of erased runs; their totals a day stay."""
    for row in gone:
        if not row.hidden:
            counters.bump(connection, row.app_id, row.workflow_id, row.status, row.origin, -1)
        _add_to_day(connection, row)
    connection.execute(delete(runs).where(runs.c.id.in_([row.id for row in gone])))


def _add_to_day(connection: Connection, row: Any) -> None:
    found = insert(connection, daily_totals).values(
        day=row.created_at // DAY_MS,
        app_id=row.app_id,
        workflow_id=row.workflow_id,
        status=row.status,
        runs=1,
        credits=bounded_price(row.credits),
    )
    connection.execute(
        found.on_conflict_do_update(
            index_elements=["day", "app_id", "workflow_id", "status"],
            set_={
                "runs": daily_totals.c.runs + found.excluded.runs,
                "credits": daily_totals.c.credits + found.excluded.credits,
            },
        )
    )
