"""Where the runs of a list stand: ranges of indexes, each with the runs in the order of their ids.

A filter that no one index has in order is made up of several ranges, one for each status and origin
that it admits, so that a page costs the runs that it shows, whatever else is stored. On SQLite each
range names its index; PostgreSQL finds it by what it knows of the rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, get_args

from sqlalchemy import Connection

from insula.kit.ids import first_id
from insula.runs.answers import RunOrigin, RunStatus
from insula.runs.rows import FINAL
from insula.storage.dialect import by_index, driver

STATUSES: tuple[str, ...] = get_args(RunStatus)
ORIGINS: tuple[str, ...] = get_args(RunOrigin)
LIVE = tuple(status for status in STATUSES if status not in FINAL)
_CHILD = "WORKFLOW"
_AHEAD_MS = 5_000
"""An id is made less than so long before or after the moment that its run shows as its beginning:
of a root, both are made at once."""
_BEHIND_MS = 60 * 60 * 1000
"""A child's id is made a little before its row, and longer before if its parent was interrupted."""


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
class Range:
    """Runs that stand together in an index."""

    index: str
    conditions: tuple[str, ...]
    values: tuple[Any, ...]

    def where(self, condition: str, *values: Any) -> "Range":
        """Return it with a condition more."""
        return Range(self.index, (*self.conditions, condition), (*self.values, *values))


def ranges(wanted: RunFilter, *, by_identifier: bool = True) -> list[Range]:
    """Return the ranges that together are what is wanted; no run is in two of them.

    ``by_identifier``: where an identifier is wanted, its runs are looked through for the rest;
    otherwise what the rest of the filter admits is looked through for the identifier.
    """
    found: list[Range] = []
    for one in _divided(wanted, by_identifier):
        found.append(_between(wanted, one))
    if wanted.since is not None and wanted.origin in (None, _CHILD):
        # Of what was made before, children alone can have begun since.
        first, last = _made(wanted.since - _BEHIND_MS), _made(wanted.since - _AHEAD_MS)
        for one in _divided(replace(wanted, origin=_CHILD), by_identifier):
            found.append(_began(wanted, one).where("id >= ? AND id < ?", first, last))
    return found


def live_ranges(wanted: RunFilter) -> list[Range]:
    """Return the ranges of the runs that are wanted and not final."""
    statuses = [status for status in LIVE if wanted.status in (None, status)]
    return [_began(wanted, one) for one in _of_statuses(wanted, statuses)]


def select_ids(
    connection: Connection,
    found: Sequence[Range],
    limit: int,
    offset: int = 0,
    *,
    newest_first: bool = True,
) -> list[str]:
    """Return the ids of the runs of some ranges together, in order."""
    if not found:
        return []
    indexes = tuple(by_index(connection, one.index) for one in found)
    text = _page(indexes, tuple(one.conditions for one in found), newest_first)
    values = [value for one in found for value in (*one.values, offset + limit)]
    rows = driver(connection).execute(text, [*values, limit, offset])
    return [run_id for (run_id,) in rows.fetchall()]


def count(connection: Connection, found: Sequence[Range], most: int) -> int:
    """Count the runs of some ranges, up to ``most``."""
    indexes = tuple(by_index(connection, one.index) for one in found)
    text = _number(indexes, tuple(one.conditions for one in found))
    values = [value for one in found for value in one.values]
    (number,) = driver(connection).execute(text, [*values, most]).fetchone()
    return int(number)


def _divided(wanted: RunFilter, by_identifier: bool) -> Iterator[Range]:
    if wanted.identifier is not None and by_identifier:
        start = ("app_id = ?", "identifier = ?", "NOT hidden")
        base = Range("runs_by_identifier", start, (wanted.app_id, wanted.identifier))
        for name, value in (("status", wanted.status), ("origin", wanted.origin)):
            if value is not None:
                base = base.where(f"{name} = ?", value)
        yield _of_workflow(wanted, base)
    elif wanted.status is not None or wanted.origin is not None:
        chosen = STATUSES if wanted.status is None else (wanted.status,)
        yield from _of_statuses(wanted, chosen)
    elif wanted.workflow_id is not None:
        start = ("workflow_id = ?", "app_id = ?", "NOT hidden")
        base = Range("runs_by_workflow", start, (wanted.workflow_id, wanted.app_id))
        yield _of_owner(wanted, _named(wanted, base))
    else:
        base = Range("runs_by_app", ("app_id = ?", "NOT hidden"), (wanted.app_id,))
        yield _named(wanted, base)


def _of_statuses(wanted: RunFilter, statuses: Sequence[str]) -> Iterator[Range]:
    origins = ORIGINS if wanted.origin is None else (wanted.origin,)
    for status, origin in product(statuses, origins):
        same = ("app_id = ?", "status = ?", "origin = ?", "NOT hidden")
        values = (wanted.app_id, status, origin)
        if wanted.workflow_id is None or status in LIVE:
            # What is live is little beside what has ended: a workflow's is looked for in its app's.
            yield _of_workflow(wanted, _named(wanted, Range("runs_by_app_status", same, values)))
        else:
            ended = ("workflow_id = ?", *same, "ended_at IS NOT NULL")
            base = Range("runs_by_workflow_status", ended, (wanted.workflow_id, *values))
            yield _of_owner(wanted, _named(wanted, base))


def _named(wanted: RunFilter, base: Range) -> Range:
    if wanted.identifier is None:
        return base
    return base.where("identifier = ?", wanted.identifier)


def _of_workflow(wanted: RunFilter, base: Range) -> Range:
    if wanted.workflow_id is not None:
        base = base.where("workflow_id = ?", wanted.workflow_id)
    return _of_owner(wanted, base)


def _of_owner(wanted: RunFilter, base: Range) -> Range:
    return base.where("workflow_app_id = ?", wanted.app_id) if wanted.own_workflow else base


def _between(wanted: RunFilter, base: Range) -> Range:
    """Ids sort by the time they were made: they bound what is looked at."""
    base = _began(wanted, base)
    if wanted.since is not None:
        base = base.where("id >= ?", _made(wanted.since - _AHEAD_MS))
    if wanted.until is not None:
        base = base.where("id < ?", _made(wanted.until + _AHEAD_MS))
    return base


def _began(wanted: RunFilter, base: Range) -> Range:
    if wanted.since is not None:
        base = base.where("created_at >= ?", wanted.since)
    return base if wanted.until is None else base.where("created_at < ?", wanted.until)


def _made(at: int) -> str:
    return first_id("run", at)


@lru_cache(512)
def _page(
    indexes: tuple[str, ...], conditions: tuple[tuple[str, ...], ...], newest_first: bool
) -> str:
    order = "ORDER BY id DESC" if newest_first else "ORDER BY id"
    # In each range as many as there can be before the end of the page.
    parts = [
        f"SELECT id FROM ({_ids(*part)} {order} LIMIT ?) AS range{number}"  # noqa: S608  # names of columns alone
        for number, part in enumerate(zip(indexes, conditions, strict=True))
    ]
    return f"{' UNION ALL '.join(parts)} {order} LIMIT ? OFFSET ?"


@lru_cache(512)
def _number(indexes: tuple[str, ...], conditions: tuple[tuple[str, ...], ...]) -> str:
    parts = [_ids(*part) for part in zip(indexes, conditions, strict=True)]
    return f"SELECT count(*) FROM ({' UNION ALL '.join(parts)} LIMIT ?) AS found"  # noqa: S608  # names of columns alone


def _ids(index: str, conditions: tuple[str, ...]) -> str:
    return f"SELECT id FROM runs {index} WHERE {' AND '.join(conditions)}"  # noqa: S608  # names of columns alone
