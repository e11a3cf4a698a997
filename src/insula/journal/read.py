"""Reading the journal of a run as it is stored: in rows while it runs, in one row after its end."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from insula.engine.events import Event, decode_events
from insula.journal.store import expand
from insula.storage.dialect import driver
from insula.storage.tables import run_data, run_events


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


_ENDED = select(run_data.c.run_id, run_data.c.events)
_LIVE = select(run_events.c.run_id, run_events.c.events)


def load_many(connection: Connection, run_ids: Sequence[str]) -> dict[str, list[Event]]:
    """Read the events of some runs, in two statements however many they are."""
    found: dict[str, list[Event]] = {run_id: [] for run_id in run_ids}
    left = set(found)
    for run_id, journal in connection.execute(_ENDED.where(run_data.c.run_id.in_(run_ids))):
        if journal is not None:
            found[run_id] = decode_events(expand(journal))
            left.discard(run_id)
    if left:
        rows = _LIVE.where(run_events.c.run_id.in_(sorted(left)))
        for run_id, batch in connection.execute(
            rows.order_by(run_events.c.run_id, run_events.c.seq)
        ):
            found[run_id] += decode_events(batch)
    return found


class Newer(NamedTuple):
    """What is stored of a run after some event; ``seq`` is the number of the last of ``events``,
    ``more`` says that there are more, ``ended`` that there are none and never will be."""

    events: list[Event]
    seq: int
    ended: bool
    more: bool


_ROWS = 200


def load_after(connection: Connection, run_id: str, after: int) -> Newer:
    """Read some of a run's events, from the one after number ``after`` on."""
    raw = driver(connection)
    row = raw.execute(
        "SELECT runs.seq, runs.ended_at, run_data.events FROM runs"
        " LEFT JOIN run_data ON run_data.run_id = runs.id WHERE runs.id = ?",
        (run_id,),
    ).fetchone()
    if row is None:
        return Newer([], after, ended=True, more=False)
    seq, ended_at, journal = row
    if journal is not None:
        events = decode_events(expand(journal))
        return Newer(_last(events, seq - after), seq, ended=ended_at is not None, more=False)
    events = []
    last = after
    for number, batch in raw.execute(
        "SELECT seq, events FROM run_events WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (run_id, after, _ROWS),
    ):
        events += _last(decode_events(batch), number - last)
        last = number
    more = last < seq and bool(events)
    return Newer(events, last, ended=ended_at is not None and not more, more=more)


def _last(events: list[Event], count: int) -> list[Event]:
    """Return the last so many of the events, or all if they are fewer."""
    return events[max(0, len(events) - max(0, count)) :]
