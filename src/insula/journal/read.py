"""Reading the journal of a run as it is stored: in rows while it runs, in one row after its end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, Connection, bindparam, func, literal, select, union_all

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
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_DATA = (run_data.c.input, run_data.c.draft, run_data.c.events)
_SIZES = union_all(
    select(
        run_data.c.run_id, sum((func.coalesce(func.length(one), 0) for one in _DATA), literal(0))
    ).where(run_data.c.run_id.in_(_IDS)),
    select(run_events.c.run_id, func.sum(func.length(run_events.c.events)))
    .where(run_events.c.run_id.in_(_IDS))
    .group_by(run_events.c.run_id),
)


def load_many(
    connection: Connection, run_ids: Sequence[str], within: int | None = None
) -> dict[str, list[Event]]:
    """Read the events of some runs, in a few statements however many they are.

    With ``within``: of as many, from the first on, as have so many bytes of data, inputs and draft
    bodies included, and of one in any case.
    """
    sizes = {} if within is None else _sizes(connection, run_ids)
    left_over = math.inf if within is None else within
    near = _first(run_ids, sizes, left_over)
    ended = connection.execute(_ENDED.where(run_data.c.run_id.in_(near)))
    whole = {run_id: journal for run_id, journal in ended if journal is not None}
    parts: dict[str, list[bytes]] = {}
    if left := sorted(run_id for run_id in near if run_id not in whole):
        rows = _LIVE.where(run_events.c.run_id.in_(left))
        for run_id, batch in connection.execute(
            rows.order_by(run_events.c.run_id, run_events.c.seq)
        ):
            parts.setdefault(run_id, []).append(batch)
    found: dict[str, list[Event]] = {}
    for run_id in near:
        journal = whole.pop(run_id, None)
        # What is small on the disk may be large.
        batches = parts.pop(run_id, []) if journal is None else [expand(journal)]
        packed = 0 if journal is None else len(batches[0]) - len(journal)
        left_over -= sizes.get(run_id, 0) + packed
        if left_over < 0 and found:
            break
        found[run_id] = [event for batch in batches for event in decode_events(batch)]
    return found


def _sizes(connection: Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """Return how many bytes are stored of each run."""
    sizes: dict[str, int] = {}
    for run_id, size in connection.execute(_SIZES, {"ids": run_ids}):
        sizes[run_id] = sizes.get(run_id, 0) + size
    return sizes


def _first(run_ids: Sequence[str], sizes: Mapping[str, int], within: float) -> list[str]:
    """Return those that are within so many bytes, the first in any case."""
    near: list[str] = []
    for run_id in run_ids:
        within -= sizes.get(run_id, 0)
        if within < 0 and near:
            break
        near.append(run_id)
    return near


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
