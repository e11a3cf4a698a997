"""The hot statements of the journal: batches of events and the ends of runs, many rows at once.

Every write is fenced by its own condition: it counts only for a run that this process owns, that is
where this process left it, and that has not ended.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection

from insula.storage.counters import bump
from insula.storage.sqlite_connection import driver
from insula.storage.tables import runs

_ROWS_A_STATEMENT = 64
_WORTH_COMPRESSING = 512
_COLUMNS = frozenset(runs.c.keys())


class Counted(NamedTuple):
    """Under which counter a run stands while it runs."""

    app_id: str
    workflow_id: str
    status: str
    origin: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one run to append, after ``previous`` up to ``last``, as one JSON array."""

    run_id: str
    previous: int
    last: int
    at: int
    events: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """The last batch of a run, with what becomes of its row.

    ``journal`` is the whole journal as it is kept, if it is at hand; else the batch is appended
    like any other and the compactor does the rest. ``rows`` says whether any row was appended.
    """

    batch: Batch
    status: str
    columns: dict[str, object]
    journal: bytes | None
    rows: bool
    counted: Counted | None
    finish: Callable[[Connection], None] | None


def append(connection: Connection, token: str, batches: Sequence[Batch]) -> list[bool]:
    """Append batches of different runs; say for each whether it was stored, or fenced."""
    stored: list[bool] = []
    for start in range(0, len(batches), _ROWS_A_STATEMENT):
        some = batches[start : start + _ROWS_A_STATEMENT]
        rows = [(one.run_id, one.previous, one.last, one.at) for one in some]
        accepted = _advance(connection, token, _ADVANCE, rows, some, ended=False)
        _insert_rows(connection, [one for one, kept in zip(some, accepted, strict=True) if kept])
        stored += accepted
    return stored


def end(connection: Connection, token: str, endings: Sequence[Ending]) -> list[bool]:
    """End runs; say for each whether this process did, or was fenced."""
    accepted: dict[str, bool] = {}
    same = sorted(endings, key=_names)
    for names, group in groupby(same, _names):
        some = list(group)
        for start in range(0, len(some), _ROWS_A_STATEMENT):
            accepted |= _end_alike(
                connection, token, names, some[start : start + _ROWS_A_STATEMENT]
            )
    return [accepted[ending.batch.run_id] for ending in endings]


def _end_alike(
    connection: Connection, token: str, names: tuple[str, ...], endings: Sequence[Ending]
) -> dict[str, bool]:
    """End runs whose rows get the same columns."""
    counted = [ending.counted or _find_counted(connection, ending) for ending in endings]
    batches = [ending.batch for ending in endings]
    rows = [
        (one.run_id, one.previous, one.last, one.at, *(ending.columns[name] for name in names))
        for one, ending in zip(batches, endings, strict=True)
    ]
    accepted = _advance(connection, token, names, rows, batches, ended=True)
    ours = [
        (ending, old) for ending, old, kept in zip(endings, counted, accepted, strict=True) if kept
    ]
    _replace_journals(connection, [ending for ending, _ in ours])
    for ending, old in ours:
        if old is not None:
            bump(connection, old.app_id, old.workflow_id, old.status, old.origin, -1)
            bump(connection, old.app_id, old.workflow_id, ending.status, old.origin, 1)
        if ending.finish is not None:
            ending.finish(connection)
    return {batch.run_id: kept for batch, kept in zip(batches, accepted, strict=True)}


def _advance(
    connection: Connection,
    token: str,
    names: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
    batches: Sequence[Batch],
    ended: bool,
) -> list[bool]:
    """Write the rows of runs where the fence admits it; say where it did."""
    cursor = driver(connection).execute(
        _advance_text(names, len(rows)), [value for row in rows for value in row] + [token]
    )
    if cursor.rowcount == len(rows):
        return [True] * len(rows)
    # Somebody is fenced. Whoever was not now stands at its last event, and nobody else can: a
    # run's owner has one batch under way, and before it the run stood further back.
    text = _standing_text(len(rows), ended)
    found = driver(connection).execute(text, [one.run_id for one in batches] + [token]).fetchall()
    standing = dict(found)
    return [standing.get(one.run_id) == one.last for one in batches]


def _insert_rows(connection: Connection, batches: Sequence[Batch]) -> None:
    if batches:
        values: list[object] = []
        for one in batches:
            values += (one.run_id, one.last, one.events)
        driver(connection).execute(_insert_text(len(batches)), values)


def _replace_journals(connection: Connection, endings: Sequence[Ending]) -> None:
    """Put each whole journal in its run's data and delete its rows."""
    raw = driver(connection)
    whole: list[object] = []
    obsolete: list[str] = []
    for ending in endings:
        if ending.journal is not None:
            whole += (ending.batch.run_id, ending.journal)
            if ending.rows:
                obsolete.append(ending.batch.run_id)
    if whole:
        raw.execute(_journal_text(len(whole) // 2), whole)
    if obsolete:
        raw.execute(_delete_text(len(obsolete)), obsolete)
    _insert_rows(connection, [ending.batch for ending in endings if ending.journal is None])


def _find_counted(connection: Connection, ending: Ending) -> Counted | None:
    """Read under which counter a run stands; a hidden child stands under none."""
    row = (
        driver(connection)
        .execute(
            "SELECT app_id, workflow_id, status, origin FROM runs WHERE id = ? AND NOT hidden",
            (ending.batch.run_id,),
        )
        .fetchone()
    )
    return None if row is None else Counted(*row)


def _names(ending: Ending) -> tuple[str, ...]:
    return tuple(ending.columns)


_ADVANCE: tuple[str, ...] = ()


@lru_cache(1024)
def _advance_text(names: tuple[str, ...], rows: int) -> str:
    unknown = set(names) - _COLUMNS
    if unknown:
        raise ValueError(f"The table of runs has no column {sorted(unknown)}.")
    assignments = "".join(
        f", {name} = v.column{number}" for number, name in enumerate(names, start=5)
    )
    return (
        f"UPDATE runs SET seq = v.column3, updated_at = v.column4{assignments}"  # noqa: S608  # names of columns alone
        f" FROM (VALUES {_values(rows, 4 + len(names))}) AS v"
        " WHERE runs.id = v.column1 AND runs.owner = ? AND runs.seq = v.column2"
        " AND runs.ended_at IS NULL"
    )


@lru_cache(256)
def _standing_text(rows: int, ended: bool) -> str:
    state = "NOT NULL" if ended else "NULL"
    return (
        f"SELECT id, seq FROM runs WHERE id IN {_values(1, rows)}"  # noqa: S608  # placeholders alone
        f" AND owner = ? AND ended_at IS {state}"
    )


@lru_cache(128)
def _insert_text(rows: int) -> str:
    return f"INSERT INTO run_events (run_id, seq, events) VALUES {_values(rows, 3)}"  # noqa: S608  # placeholders alone


@lru_cache(128)
def _journal_text(rows: int) -> str:
    return (
        f"INSERT INTO run_data (run_id, events) VALUES {_values(rows, 2)}"  # noqa: S608  # placeholders alone
        " ON CONFLICT (run_id) DO UPDATE SET events = excluded.events"
    )


@lru_cache(128)
def _delete_text(rows: int) -> str:
    return f"DELETE FROM run_events WHERE run_id IN {_values(1, rows)}"  # noqa: S608  # placeholders alone


def _values(rows: int, columns: int) -> str:
    return ", ".join(["(" + ", ".join(["?"] * columns) + ")"] * rows)


def compress(journal: bytes) -> bytes:
    """Make a whole journal small; a very small one stays as it is (it begins with ``[``)."""
    return journal if len(journal) < _WORTH_COMPRESSING else zlib.compress(journal, 1)


def expand(stored: bytes) -> bytes:
    """Undo ``compress``."""
    return stored if stored[:1] == b"[" else zlib.decompress(stored)
