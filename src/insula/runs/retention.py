"""How long a run's data stays, and erasing it when it is due."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, case, delete, exists, or_, select, update

from insula.files.repository import delete_run_files
from insula.kit import json
from insula.kit.ids import first_id
from insula.runs.rows import RunRow
from insula.storage import counters
from insula.storage.dialect import insert
from insula.storage.tables import daily_totals, run_data, run_events, runs

KEEP = -1
_DAY_MS = 24 * 60 * 60 * 1000


def due_at(row: RunRow, status: str, ended_at: int, default: int) -> int | None:
    """Return when the run's data is due (Unix ms), ``None`` if it is kept for ever.

    ``default`` is the installation's, in seconds; ``preserve_on_failure`` keeps FAILED runs.
    """
    chosen = {} if row.retention is None else json.decode(row.retention)
    if status == "FAILED" and chosen.get("preserve_on_failure"):
        return None
    seconds = chosen.get("max_age_in_seconds", default)
    return None if seconds == KEEP else ended_at + int(seconds * 1000)


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


class Erased(NamedTuple):
    """How many runs were erased, and the ids of files whose bytes are to be removed."""

    runs: int
    files: list[str]


def erase_due(connection: Connection, now: int, limit: int) -> Erased:
    """Erase the data of up to ``limit`` runs that are due; of children only when their root has
    ended."""
    root = runs.alias("root")
    root_lives = exists().where(root.c.id == runs.c.root_id, root.c.ended_at.is_(None))
    due = list(
        connection.scalars(
            select(runs.c.id)
            .where(runs.c.erased_at.is_(None), runs.c.retention_due_at <= now)
            .where(runs.c.ended_at.is_not(None), or_(runs.c.depth == 0, ~root_lives))
            .order_by(runs.c.retention_due_at)
            .limit(limit)
        )
    )
    return Erased(len(due), erase(connection, due, now) if due else [])


def due_below(connection: Connection, root_id: str, now: int) -> list[str]:
    """Return the ended runs below a root whose data is due, and was kept for the root alone."""
    query = select(runs.c.id).where(runs.c.root_id == root_id, runs.c.depth > 0)
    due = query.where(runs.c.erased_at.is_(None), runs.c.retention_due_at <= now)
    return list(connection.scalars(due.where(runs.c.ended_at.is_not(None))))


def erase(connection: Connection, run_ids: list[str], now: int) -> list[str]:
    """Erase the data of ended runs: inputs, outputs, logs, errors, events, files."""
    connection.execute(run_data.delete().where(run_data.c.run_id.in_(run_ids)))
    connection.execute(run_events.delete().where(run_events.c.run_id.in_(run_ids)))
    connection.execute(
        update(runs)
        .where(runs.c.id.in_(run_ids))
        .values(
            erased_at=now,
            error=case((runs.c.error.is_(None), None), else_=""),
            options=b"{}",
            updated_at=now,
        )
    )
    return delete_run_files(connection, run_ids)


def remove_rows(connection: Connection, before: int, after: str, limit: int) -> str | None:
    """Remove the rows of erased runs that were made before a time; their totals a day stay.

    Looks at up to ``limit`` rows from the one after ``after`` on; returns the last one's id,
    ``None`` where there are no more.
    """
    columns = (
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
    old = connection.execute(
        select(*columns)
        .where(runs.c.id > after, runs.c.id < first_id("run", before))
        .order_by(runs.c.id)
        .limit(limit)
    ).all()
    gone = [row for row in old if row.erased_at is not None]
    for row in gone:
        if not row.hidden:
            counters.bump(connection, row.app_id, row.workflow_id, row.status, row.origin, -1)
        _add_to_day(connection, row)
    connection.execute(delete(runs).where(runs.c.id.in_([row.id for row in gone])))
    return old[-1].id if len(old) == limit else None


def _add_to_day(connection: Connection, row: Any) -> None:
    found = insert(connection, daily_totals).values(
        day=row.created_at // _DAY_MS,
        app_id=row.app_id,
        workflow_id=row.workflow_id,
        status=row.status,
        runs=1,
        credits=row.credits,
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
