"""Lists of an app's runs: filters, pages and cursors over the indexes, counts from the counters."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from insula.kit.ids import first_id
from insula.runs.repository import live_only
from insula.runs.rows import RunRow, run_row
from insula.storage import counters
from insula.storage.tables import runs
from insula.web.pagination import Page

LIVE = ("PENDING", "RUNNING")
_SLACK_MS = 60 * 60 * 1000
COUNTED = 10_000
"""How far runs are counted where no counter tells."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of an app; ``None`` does not restrict. Times are Unix milliseconds."""

    app_id: str
    workflow_id: str | None = None
    own_workflow: bool = False
    status: str | None = None
    origin: str | None = None
    identifier: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the counters know how many there are."""
        return self.identifier is None and self.since is None and self.until is None


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of runs, newest first, and how many there are in all."""

    rows: list[RunRow]
    count: int
    capped: bool
    next: dict[str, Any] | None


def list_runs(connection: Connection, wanted: RunFilter, page: Page) -> RunPage:
    """Read one page."""
    statement = _filtered(select(runs), wanted).order_by(runs.c.id.desc())
    if page.cursor is not None:
        statement = statement.where(runs.c.id < str(page.cursor.get("id", "")))
    found = connection.execute(statement.offset(page.offset).limit(page.take + 1)).all()
    rows = [run_row(row) for row in found[: page.take]]
    following = {"id": rows[-1].id} if len(found) > page.take else None
    count, capped = _count(connection, wanted)
    return RunPage(rows, count, capped, following)


def unfinished_ids(connection: Connection, wanted: RunFilter, limit: int) -> list[str]:
    """Return ids of runs that match and are not final, roots only: children follow them."""
    statement = _filtered(select(runs.c.id), wanted)
    live = statement.where(runs.c.ended_at.is_(None), runs.c.depth == 0)
    return list(connection.scalars(live_only(live).order_by(runs.c.id).limit(limit)))


def has_run(connection: Connection, app_id: str, workflow_id: str) -> bool:
    """Say whether an app has a run of a workflow that it may see, whatever became of that."""
    statement = _filtered(select(runs.c.id), RunFilter(app_id, workflow_id))
    return connection.execute(statement.limit(1)).first() is not None


def _filtered(statement: Select[Any], wanted: RunFilter) -> Select[Any]:
    statement = statement.where(runs.c.app_id == wanted.app_id, runs.c.hidden.is_(False))
    if wanted.own_workflow:
        statement = statement.where(runs.c.workflow_app_id == wanted.app_id)
    for column, value in (
        (runs.c.workflow_id, wanted.workflow_id),
        (runs.c.status, wanted.status),
        (runs.c.origin, wanted.origin),
        (runs.c.identifier, wanted.identifier),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.status in LIVE:
        statement = live_only(statement.where(runs.c.ended_at.is_(None)))
    if wanted.status in ("FAILED", "CANCELLED", "SKIPPED"):  # lets the partial indexes serve
        statement = statement.where(runs.c.status.in_(("FAILED", "CANCELLED", "SKIPPED")))
    # Ids sort by the time they were made: they bound what is looked at, loosely, for a child's id
    # is made a little before its row, and longer before if its parent was interrupted in between.
    if wanted.since is not None:
        first = first_id("run", wanted.since - _SLACK_MS)
        statement = statement.where(runs.c.created_at >= wanted.since, runs.c.id >= first)
    if wanted.until is not None:
        last = first_id("run", wanted.until + _SLACK_MS)
        statement = statement.where(runs.c.created_at < wanted.until, runs.c.id < last)
    return statement


def _count(connection: Connection, wanted: RunFilter) -> tuple[int, bool]:
    if wanted.is_counted:
        count = counters.count(
            connection, wanted.app_id, wanted.workflow_id, wanted.status, wanted.origin
        )
        return count, False
    some = _filtered(select(runs.c.id), wanted).limit(COUNTED + 1).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return min(count, COUNTED), count > COUNTED
