"""Whether what is stored of runs holds together: statuses, counters, journals, data without a run.

For an operator's own look, on one snapshot; it reads everything.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
)

from insula.engine.events import Event, RunEnded, decode_events
from insula.journal.store import expand
from insula.storage.counters import Bumps, by_key
from insula.storage.dialect import now_ms
from insula.storage.tables import (
    counters,
    nodes,
    run_data,
    run_events,
    runs,
)

_UNFINISHED = ("PENDING", "RUNNING")
EXAMPLES = 5
_FETCHED = 16

Told = Callable[[str, int], None]
"""Hears of a check and how many things it has looked at."""


class Finding(NamedTuple):
    """One check: how much is wrong, and the first of it by name."""

    check: str
    wrong: int
    examples: list[str]
    seen: int
    """How many things were looked at."""
    note: str = ""


class _Wrong:
    """Counts, and keeps the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, what: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)

    def finding(self, check: str, seen: int, note: str = "") -> Finding:
        return Finding(check, self.count, self.examples, seen, note)


def audit(
    connection: Connection, told: Told, counted: Iterable[Callable[[Connection], Bumps]] = ()
) -> Iterator[Finding]:
    """Check everything, one finding a check.

    ``counted`` count the rows of what else than runs has counters, each by the counter's key.
    """
    yield _statuses(connection)
    yield _counters(connection, counted)
    yield _ended_journals(connection, told)
    yield _open_journals(connection, told)
    yield _data_without_runs(connection)


def _statuses(connection: Connection) -> Finding:
    unfinished = runs.c.status.in_(_UNFINISHED)
    torn = or_(
        and_(runs.c.ended_at.is_(None), ~unfinished), and_(runs.c.ended_at.is_not(None), unfinished)
    )
    nobodys = and_(runs.c.ended_at.is_(None), runs.c.status == "RUNNING", runs.c.owner.is_(None))
    wrong = _Wrong()
    for run_id, status in connection.execute(
        select(runs.c.id, runs.c.status).where(or_(torn, nobodys))
    ):
        wrong.add(f"{run_id} is {status}")
    alive = select(nodes.c.token).where(nodes.c.expires_at > now_ms(connection))
    left = and_(runs.c.ended_at.is_(None), runs.c.owner.is_not(None), runs.c.owner.not_in(alive))
    waiting = _count(connection, left)
    note = f"{waiting} go on when a server starts" if waiting else ""
    return wrong.finding("every run has ended, waits or is owned", _all(connection), note)


def _counters(
    connection: Connection, counted_rows: Iterable[Callable[[Connection], Bumps]]
) -> Finding:
    keys = ("app_id", "workflow_id", "status", "origin")
    of_runs = [runs.c[key] for key in keys]
    rows = select(*of_runs, func.count()).where(~runs.c.hidden).group_by(*of_runs)
    of_counters = [counters.c[key] for key in keys]
    sums = select(*of_counters, func.sum(counters.c.count)).group_by(*of_counters)
    there = by_key(connection, rows)
    for count_rows in counted_rows:
        there |= count_rows(connection)
    counted = by_key(connection, sums)
    wrong = _Wrong()
    for key in sorted(there.keys() | counted.keys()):
        if there.get(key, 0) != counted.get(key, 0):
            name = " ".join(filter(None, key))
            wrong.add(f"{name}: {counted.get(key, 0)} counted, {there.get(key, 0)} there")
    return wrong.finding("counters equal the rows", len(there))


def _ended_journals(connection: Connection, told: Told) -> Finding:
    """Look at journals in one row: readable, complete, and of the status that the row tells."""
    check = "journals of ended runs are whole"
    query = (
        select(runs.c.id, runs.c.seq, runs.c.status, run_data.c.events)
        .join(run_data, run_data.c.run_id == runs.c.id)
        .where(run_data.c.events.is_not(None))
    )
    wrong, seen = _Wrong(), 0
    for run_id, seq, status, stored in _stream(connection, query):
        seen += 1
        told(check, seen)
        problem = _whole(stored, seq, status)
        if problem:
            wrong.add(f"{run_id}: {problem}")
    journal = or_(
        exists().where(run_data.c.run_id == runs.c.id, run_data.c.events.is_not(None)),
        exists().where(run_events.c.run_id == runs.c.id),
    )
    query = select(runs.c.id).where(
        runs.c.ended_at.is_not(None), runs.c.erased_at.is_(None), runs.c.seq > 0, ~journal
    )
    for (run_id,) in _stream(connection, query):
        wrong.add(f"{run_id}: it is not there")
    return wrong.finding(check, seen)


def _whole(stored: bytes, seq: int, status: str) -> str | None:
    try:
        events = decode_events(expand(stored))
    except (msgspec.MsgspecError, zlib.error, UnicodeDecodeError) as error:
        return f"it cannot be read ({error})"
    return _complete(events, seq, status)


def _complete(events: list[Event], seq: int, status: str) -> str | None:
    if len(events) != seq:
        return f"{len(events)} events, and the row tells of {seq}"
    last = events[-1] if events else None
    if status not in _UNFINISHED and not (isinstance(last, RunEnded) and last.status == status):
        return f"it does not end as {status}"
    return None


def _open_journals(connection: Connection, told: Told) -> Finding:
    """Look at journals in rows: of runs that go on, and of ended ones that are very long."""
    check = "journals in rows are whole"
    query = (
        select(runs.c.id, runs.c.seq, runs.c.status, run_events.c.seq, run_events.c.events)
        .join(runs, runs.c.id == run_events.c.run_id)
        .where(~exists().where(run_data.c.run_id == runs.c.id, run_data.c.events.is_not(None)))
        .order_by(run_events.c.run_id, run_events.c.seq)
    )
    wrong, seen = _Wrong(), 0
    for run_id, batches in groupby(_stream(connection, query), lambda row: str(row[0])):
        seen += 1
        told(check, seen)
        problem = _in_order(batches)
        if problem:
            wrong.add(f"{run_id}: {problem}")
    query = select(runs.c.id).where(
        runs.c.ended_at.is_(None), runs.c.seq > 0, ~exists().where(run_events.c.run_id == runs.c.id)
    )
    for (run_id,) in _stream(connection, query):
        wrong.add(f"{run_id}: it is not there")
    return wrong.finding(check, seen)


def _in_order(batches: Iterator[Any]) -> str | None:
    count, seq, status = 0, 0, ""
    last: list[Event] = []
    for _, seq, status, number, stored in batches:  # noqa: B007  # the run's, in every row
        try:
            last = decode_events(stored)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return f"it cannot be read ({error})"
        count += len(last)
        if number != count:
            return f"an event before number {number} is not there"
    if count != seq:
        return f"{count} events, and the row tells of {seq}"
    return _complete(last, len(last), status)


def _data_without_runs(connection: Connection) -> Finding:
    wrong, seen = _Wrong(), 0
    for table in (run_data, run_events):
        keeps = exists().where(runs.c.id == table.c.run_id, runs.c.erased_at.is_(None))
        query = select(table.c.run_id).where(~keeps).distinct()
        for (run_id,) in _stream(connection, query):
            wrong.add(f"{run_id} in {table.name}")
        seen += connection.execute(select(func.count()).select_from(table)).scalar_one()
    return wrong.finding("no data is left of runs that are gone or erased", seen)


def _all(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(runs)).scalar_one()


def _count(connection: Connection, which: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(runs).where(which)).scalar_one()


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    """Give rows as they are read: journals do not all fit into memory."""
    with connection.execute(query.execution_options(yield_per=_FETCHED)) as result:
        yield from result
