"""How long a run may still take. Time in which nobody executed it does not count.

Each takeover notes how long the run had been executed before, and when its new owner began; both by
the clocks of the owners.
"""

from sqlalchemy import Connection, update

from insula.runs.options import Spent, change_options, options_of
from insula.runs.rows import RunRow
from insula.storage.tables import runs


def seconds_left(row: RunRow, default: float) -> float:
    """Return the seconds that a run may still take, from its beginning or its takeover on."""
    options = options_of(row)
    whole = options.timeout or default
    return whole if options.spent is None else max(0.0, whole - options.spent.ms / 1000)


def take_in(row: RunRow, last_at: int, now: int) -> None:
    """Let a run that is taken over have the time that it had left at its last stored event."""
    since = row.started_at if row.started_at is not None else now
    before = options_of(row).spent or Spent(0, since)
    spent = Spent(before.ms + max(0, last_at - before.since), now)
    row.options = change_options(row, spent=spent)


def store(connection: Connection, row: RunRow) -> None:
    """Store what ``take_in`` changed, unless the run is another's by now."""
    mine = update(runs).where(runs.c.id == row.id, runs.c.owner == row.owner)
    connection.execute(mine.where(runs.c.ended_at.is_(None)).values(options=row.options))
