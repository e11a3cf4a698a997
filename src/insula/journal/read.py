"""Reading the journal of a run as it is stored: in rows while it runs, in one row after its end."""

from typing import NamedTuple

from sqlalchemy import Connection

from insula.engine.events import Event, decode_events
from insula.journal.store import expand
from insula.storage.dialect import driver


class Stored(NamedTuple):
    """What is stored of a run; ``ended`` also where there is no such run."""

    events: list[Event]
    seq: int
    ended: bool


def load(connection: Connection, run_id: str) -> Stored:
    """Read a run's events, the number of the last one, and whether the run has ended."""
    raw = driver(connection)
    row = raw.execute(
        "SELECT runs.seq, runs.ended_at, run_data.events FROM runs"
        " LEFT JOIN run_data ON run_data.run_id = runs.id WHERE runs.id = ?",
        (run_id,),
    ).fetchone()
    if row is None:
        return Stored([], 0, ended=True)
    seq, ended_at, journal = row
    if journal is not None:
        return Stored(decode_events(expand(journal)), seq, ended_at is not None)
    events: list[Event] = []
    for (batch,) in raw.execute(
        "SELECT events FROM run_events WHERE run_id = ? ORDER BY seq", (run_id,)
    ):
        events += decode_events(batch)
    return Stored(events, seq, ended_at is not None)
