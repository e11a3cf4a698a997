"""The hot statements of the journal: batches of events and the ends of runs, many rows at once.

Every write is fenced by its own condition: it counts only for a run that this process owns, that is
where this process left it, and that has not ended.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection

from insula.storage.counters import bump
from insula.storage.dialect import driver
from insula.storage.rows import delete_rows, insert_rows, parts, update_rows
from insula.storage.tables import run_data, run_events, runs

_WORTH_COMPRESSING = 4096
_NO_COLUMNS: tuple[str, ...] = ()
_MATCHED = ("id", "seq")
_ALWAYS = ("seq", "updated_at")
_OURS = "runs.owner = ? AND runs.ended_at IS NULL"
_REPLACE = "ON CONFLICT (run_id) DO UPDATE SET events = excluded.events"


class Counted(NamedTuple):
    """Under which counter a run stands while it runs."""

    app_id: str
    workflow_id: str
    status: str
    origin: str


class SomeFenced(Exception):
    """Some of several runs are fenced: undo all, and store each alone."""


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
    """Append batches of different runs; say for each whether it was stored, or fenced.

    Raises:
        SomeFenced: some of several were, and everything is to be undone.
    """
    stored: list[bool] = []
    for some in parts(connection, batches):
        rows = [(one.run_id, one.previous, one.last, one.at) for one in some]
        ours = _advance(connection, token, _NO_COLUMNS, rows)
        if ours:
            _insert_events(connection, some)
        stored += [ours] * len(some)
    return stored


def end(connection: Connection, token: str, endings: Sequence[Ending]) -> list[bool]:
    """End runs; say for each whether this process did, or was fenced.

    Raises:
        SomeFenced: some of several were, and everything is to be undone.
    """
    ended: dict[str, bool] = {}
    for names, group in groupby(sorted(endings, key=_names), _names):
        for some in parts(connection, list(group)):
            ours = _end_alike(connection, token, names, some)
            ended |= {ending.batch.run_id: ours for ending in some}
    return [ended[ending.batch.run_id] for ending in endings]


def _end_alike(
    connection: Connection, token: str, names: tuple[str, ...], endings: Sequence[Ending]
) -> bool:
    """End runs whose rows get the same columns."""
    counted = [ending.counted or _find_counted(connection, ending) for ending in endings]
    rows = []
    for ending in endings:
        one = ending.batch
        final = (ending.columns[name] for name in names)
        rows.append((one.run_id, one.previous, one.last, one.at, *final))
    if not _advance(connection, token, names, rows):
        return False
    _replace_journals(connection, endings)
    for ending, old in zip(endings, counted, strict=True):
        if old is not None:
            bump(connection, old.app_id, old.workflow_id, old.status, old.origin, -1)
            bump(connection, old.app_id, old.workflow_id, ending.status, old.origin, 1)
        if ending.finish is not None:
            ending.finish(connection)
    return True


def _advance(
    connection: Connection,
    token: str,
    names: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> bool:
    """Write the rows of runs if the fence admits all; of a single one say whether it does.

    The number of rows written says whether it does, which is as good as always. To ask for which
    ones would cost every group, so where it did not for some, each is stored again alone.
    """
    assigned = (*_ALWAYS, *names)
    written = update_rows(connection, runs, _MATCHED, assigned, rows, _OURS, (token,))
    if written == len(rows):
        return True
    if len(rows) == 1:
        return False
    raise SomeFenced


def _insert_events(connection: Connection, batches: Sequence[Batch]) -> None:
    if batches:
        rows = [(one.run_id, one.last, one.events) for one in batches]
        insert_rows(connection, run_events, ("run_id", "seq", "events"), rows)


def _replace_journals(connection: Connection, endings: Sequence[Ending]) -> None:
    """Put each whole journal in its run's data and delete its rows."""
    whole = [(one.batch.run_id, one.journal) for one in endings if one.journal is not None]
    insert_rows(connection, run_data, ("run_id", "events"), whole, _REPLACE)
    obsolete = [one.batch.run_id for one in endings if one.journal is not None and one.rows]
    delete_rows(connection, run_events, "run_id", obsolete)
    _insert_events(connection, [one.batch for one in endings if one.journal is None])


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


def compress(journal: bytes) -> bytes:
    """Make a whole journal small; a very small one stays as it is (it begins with ``[``)."""
    return journal if len(journal) < _WORTH_COMPRESSING else zlib.compress(journal, 1)


def expand(stored: bytes) -> bytes:
    """Undo ``compress``."""
    return stored if stored[:1] == b"[" else zlib.decompress(stored)
