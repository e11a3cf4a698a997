"""What a power cut left of a data folder, held against what clients had been told by then."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from tests.chaos.evidence import blob
from tests.chaos.history import FINAL, History, Kept

_RANK = {"PENDING": 0, "RUNNING": 1}


def losses(data: Path, histories: Iterable[History], until: float) -> list[str]:
    """Return what was told before ``until`` (CLOCK_MONOTONIC) and does not stand in the folder."""
    file = data / "insula.db"
    known = list(histories)
    told = any(one.at < until for history in known for one in (*history.told, *history.kept))
    if not file.exists():
        return ["the database is gone"] if told else []
    with closing(sqlite3.connect(file)) as connection:
        try:
            if not told and not _has_tables(connection):
                return []  # the power went before the server was there
            return [*_of_database(connection, known, until, data)]
        except sqlite3.DatabaseError as error:
            return [f"the database cannot be read: {error}"]


def _has_tables(connection: sqlite3.Connection) -> bool:
    """Say whether the first migration was stored."""
    return bool(connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall())


def _of_database(
    connection: sqlite3.Connection, histories: list[History], until: float, data: Path
) -> Iterator[str]:
    (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
    if sound != "ok":
        yield f"the database is damaged: {sound}"
        return
    rows = connection.execute("SELECT id, status, seq FROM runs").fetchall()
    runs = {run_id: (status, seq) for run_id, status, seq in rows}
    files = {file_id for (file_id,) in connection.execute("SELECT id FROM files")}
    for history in histories:
        yield from _of_statuses(history, until, runs)
        yield from _of_streams(history, until, runs)
        for kept in history.kept:
            if kept.at < until and (kept.file_id not in files or not _is_whole(data, kept)):
                yield f"file {kept.file_id} was stored and is lost"


def _of_statuses(history: History, until: float, runs: dict[str, tuple[str, int]]) -> Iterator[str]:
    for told in history.told:
        if told.at >= until:
            continue
        status, _ = runs.get(told.run_id, ("lost", 0))
        if told.status in FINAL:
            stands = status == told.status
        else:
            stands = status in FINAL or _RANK.get(status, -1) >= _RANK[told.status]
        if not stands:
            yield f"{told.run_id} was told {told.status} and is {status}"


def _of_streams(history: History, until: float, runs: dict[str, tuple[str, int]]) -> Iterator[str]:
    for stream in history.streams:
        heard = [event for event in stream.events if event.at < until]
        # A wire event comes from a stored one, and no stored one makes two.
        if heard and runs.get(stream.run_id, ("", -1))[1] < heard[-1].number:
            yield f"{stream.run_id}: event {heard[-1].number} was streamed and is lost"


def _is_whole(data: Path, kept: Kept) -> bool:
    place = blob(data, kept.file_id)
    return place.exists() and hashlib.sha256(place.read_bytes()).hexdigest() == kept.digest
