"""What is due to be erased, and when: counted with a bound, so that asking costs little whatever is
stored.
"""

from typing import NamedTuple

from sqlalchemy import Connection, case, func, select

from insula.storage.tables import runs

DAYS = 30
COUNTED_MAX = 10_000
"""Runs of the installation that are looked at for one count; where there are more, it says so."""
DAY_MS = 24 * 60 * 60 * 1000


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
    some = (
        select(runs.c.app_id, runs.c.retention_due_at)
        .where(runs.c.erased_at.is_(None))
        .where(runs.c.retention_due_at > after, runs.c.retention_due_at <= end)
        .order_by(runs.c.retention_due_at)
        .limit(COUNTED_MAX + 1)
        .subquery()
    )
    mine = some.c.app_id == app_id
    query = select(
        func.count(), func.count(case((mine, 1))), func.min(case((mine, some.c.retention_due_at)))
    ).select_from(some)
    looked_at, found, first = connection.execute(query).one()
    return Count(end, min(found, COUNTED_MAX), looked_at > COUNTED_MAX, first)
