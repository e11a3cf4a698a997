"""Lists of an app's runs: pages and cursors over ranges of indexes, counts from the counters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from insula.runs.ranges import RunFilter, count, live_ranges, ranges, select_ids
from insula.runs.rows import RunRow, run_row
from insula.storage import counters
from insula.storage.tables import runs
from insula.web.pagination import Page

COUNTED = 10_000
"""How far runs are counted where no counter tells."""
_FEW = 1_000
"""So many runs are looked through for an identifier, rather than its runs for them."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of runs, newest first, and how many there are in all."""

    rows: list[RunRow]
    count: int
    capped: bool
    next: dict[str, Any] | None


def list_runs(connection: Connection, wanted: RunFilter, page: Page) -> RunPage:
    """Read one page."""
    counted = _counted(connection, wanted)
    is_divided = wanted.status is not None or wanted.origin is not None
    found = following = ranges(wanted, by_identifier=not is_divided or counted > _FEW)
    if (before := page.position("id")) is not None:
        following = [one.where("id < ?", before) for one in found]
    ids = select_ids(connection, following, page.take + 1, page.offset)
    rows = _rows(connection, ids[: page.take])
    cursor: dict[str, Any] | None = {"id": rows[-1].id} if len(ids) > page.take else None
    if wanted.is_counted:
        return RunPage(rows, counted, False, cursor)
    # Counted at the first page: nobody goes through ten thousand again for each that follows.
    number = _known(page)
    if number is None:
        number = count(connection, found, COUNTED + 1)
    if cursor is not None:
        cursor["count"] = number
    return RunPage(rows, min(number, COUNTED), number > COUNTED, cursor)


def _known(page: Page) -> int | None:
    number = None if page.cursor is None else page.cursor.get("count")
    return number if isinstance(number, int) and 0 <= number <= COUNTED + 1 else None


def unfinished_ids(connection: Connection, wanted: RunFilter, limit: int) -> list[str]:
    """Return ids of runs that match and are not final, parents before their children."""
    return select_ids(connection, live_ranges(wanted), limit, newest_first=False)


def has_run(connection: Connection, app_id: str, workflow_id: str) -> bool:
    """Say whether an app has a run of a workflow that it may see, whatever became of that."""
    return bool(select_ids(connection, ranges(RunFilter(app_id, workflow_id)), 1))


def _counted(connection: Connection, wanted: RunFilter) -> int:
    """Return how many runs there are of what the counters tell apart."""
    return counters.count(
        connection, wanted.app_id, wanted.workflow_id, wanted.status, wanted.origin
    )


def _rows(connection: Connection, ids: Sequence[str]) -> list[RunRow]:
    if not ids:
        return []
    found = connection.execute(select(runs).where(runs.c.id.in_(ids)))
    rows = {row.id: row for row in map(run_row, found)}
    return [rows[run_id] for run_id in ids]
