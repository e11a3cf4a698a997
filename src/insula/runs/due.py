"""What is due to be erased, and when: counted with a bound, so that asking costs little whatever is
stored.
"""

from typing import NamedTuple

from sqlalchemy import Connection

from insula.kit.clock import DAY_MS
from insula.storage.dialect import by_index, driver

DAYS = 30
COUNTED_MAX = 10_000
"""Runs of an app that are looked at for one count; where there are more, it says so."""

_SOON = """
    SELECT count(*), min(retention_due_at) FROM (
        SELECT retention_due_at FROM runs {index}
        WHERE app_id = ? AND erased_at IS NULL AND retention_due_at IS NOT NULL
        AND retention_due_at > ? AND retention_due_at <= ?
        ORDER BY retention_due_at LIMIT ?
    ) AS soon
"""


class Count(NamedTuple):
    """How many runs of an app fall due up to ``end``; ``capped``: at least so many. ``first`` is
    when the first of them does."""

    end: int
    runs: int
    capped: bool
    first: int | None


class Status(NamedTuple):
    """What is due now, and what falls due on each of the next days (UTC), today's rest first."""

    now: Count
    days: list[Count]


def status(connection: Connection, app_id: str, now: int) -> Status:
    """Return what is due of an app's runs."""
    days, after = [], now
    for day in range(now // DAY_MS, now // DAY_MS + DAYS):
        end = (day + 1) * DAY_MS - 1
        days.append(_count(connection, app_id, after, end))
        after = end
    return Status(_count(connection, app_id, -1, now), days)


def _count(connection: Connection, app_id: str, after: int, end: int) -> Count:
    query = _SOON.format(index=by_index(connection, "runs_due_of_app"))
    values = (app_id, after, end, COUNTED_MAX + 1)
    found, first = driver(connection).execute(query, values).fetchone()
    return Count(end, min(found, COUNTED_MAX), found > COUNTED_MAX, first)
