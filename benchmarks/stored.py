"""Many stored runs: how long a page of each list takes, walked by its cursor, with its count, and
how fast what is due is erased beside live runs.

    python benchmarks/stored.py [RUNS] [sqlite|postgresql] [lists]

``lists`` leaves the erasing out.
"""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg

from benchmarks.client import request, walk
from benchmarks.databases import Kind, database
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving
from insula.engine.events import RunEnded, RunStarted, StepEnded, StepStarted, encode_events
from insula.kit.clock import iso, now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs.rows import COLUMNS, RunRow

_BATCH = 5_000
_PAGES = 100
_SLOT = 15
_RARE = 20_000
"""One run in so many has FAILED, and one is of a test."""
_LISTS: dict[str, dict[str, str]] = {
    "all": {},
    "COMPLETED": {"status": "COMPLETED"},
    "FAILED, which is rare": {"status": "FAILED"},
    "RUNNING, which none is": {"status": "RUNNING"},
    "TEST, which is rare": {"origin": "TEST"},
    "COMPLETED and ENDPOINT": {"status": "COMPLETED", "origin": "ENDPOINT"},
    "FAILED and TEST, which none is": {"status": "FAILED", "origin": "TEST"},
    "of the last minute": {"since": "minute"},
    "until the first hour, which none is": {"until": "2000-01-01T00:00:00Z"},
}
MAKE_DUE = "UPDATE runs SET retention_due_at = 1 WHERE credits = 0 AND seq = 4"
LEFT = "SELECT 1 FROM runs WHERE erased_at IS NULL AND retention_due_at = 1 LIMIT 1"
GONE = "SELECT COUNT(*) FROM runs WHERE erased_at IS NOT NULL AND retention_due_at = 1"
_BESIDE_SECONDS = 6
_LIVE_CALLERS = 1
"""Callers of light runs beside the erasing: one makes about 300 a second."""


def _kind(number: int) -> tuple[str, str]:
    """Return the status and the origin of a run."""
    return (
        "FAILED" if number % _RARE == 1 else "COMPLETED",
        "TEST" if number % _RARE == 2 else "ENDPOINT",
    )


def _row(app_id: str, workflow_id: str, version_id: str, number: int) -> RunRow:
    now = now_ms()
    status, origin = _kind(number)
    run_id = new_id("run")
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values.update(
        id=run_id,
        app_id=app_id,
        workflow_app_id=app_id,
        workflow_id=workflow_id,
        version_id=version_id,
        version=1,
        root_id=run_id,
        depth=0,
        hidden=False,
        status=status,
        origin=origin,
        background=False,
        options=b"{}",
        seq=4,
        credits=0.0,
        retention_due_at=None,
        started_at=now,
        ended_at=now,
        created_at=now,
        updated_at=now,
    )
    return RunRow(**values)


class Stored(Protocol):
    """A database beside the server, looked at and filled with its own driver."""

    def rows(self, sql: str) -> list[Any]:
        """Execute a statement and commit; return its rows."""
        ...

    def insert(self, table: str, columns: Sequence[str], rows: list[Sequence[Any]]) -> None:
        """Insert many rows and commit."""
        ...


class SqliteStored:
    """The file of a server."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self._path)) as raw, raw:
            return raw.execute(sql).fetchall()

    def insert(self, table: str, columns: Sequence[str], rows: list[Sequence[Any]]) -> None:
        places = ", ".join("?" * len(columns))
        text = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        with closing(sqlite3.connect(self._path)) as raw, raw:
            raw.executemany(text, rows)


class PostgresStored:
    """The database at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, sql: str) -> list[Any]:
        with psycopg.connect(self._url, autocommit=True) as raw:
            found = raw.execute(sql.encode())
            return found.fetchall() if found.description else []

    def insert(self, table: str, columns: Sequence[str], rows: list[Sequence[Any]]) -> None:
        text = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with psycopg.connect(self._url) as raw, raw.cursor().copy(text.encode()) as copy:
            for row in rows:
                copy.write_row(row)


def fill(stored: Stored, workflow_id: str, count: int) -> float:
    """Insert ended runs of about 4 KB each straight into the database; return the seconds."""
    output = Raw(json.dumps({"result": "x" * 2900}).encode())
    events = encode_events(
        [
            RunStarted(1),
            StepStarted(1, "third", "code", attempt=1),
            StepEnded(2, "third", "COMPLETED", output=output),
            RunEnded(2, "COMPLETED", result_key="third"),
        ]
    )
    journal, given = zlib.compress(events, 1), json.dumps({"text": "x" * 1000}).encode()
    began = time.perf_counter()
    ((app_id, version_id),) = stored.rows(
        f"SELECT app_id, latest_version_id FROM workflows WHERE id = '{workflow_id}'"
    )
    for start in range(0, count, _BATCH):
        some = range(start, min(start + _BATCH, count))
        rows = [_row(app_id, workflow_id, version_id, number) for number in some]
        stored.insert("runs", COLUMNS, [tuple(row.values()) for row in rows])
        stored.insert(
            "run_data", ("run_id", "input", "events"), [(row.id, given, journal) for row in rows]
        )
    stored.insert(
        "counters",
        ("app_id", "workflow_id", "status", "origin", "slot", "count"),
        [
            (app_id, workflow_id, *kind, _SLOT, number)
            for kind, number in Counter(map(_kind, range(count))).items()
        ],
    )
    return time.perf_counter() - began


async def measure(count: int, kind: Kind = "sqlite", *, erase: bool = True) -> dict[str, Any]:
    """Return how long a page of 20 runs takes with ``count`` stored, and how fast they go."""
    with tempfile.TemporaryDirectory() as name:
        async with database(kind) as settings:
            return await _measure(count, Path(name), settings, erase)


async def _measure(
    count: int, folder: Path, settings: dict[str, str], erase: bool
) -> dict[str, Any]:
    url = settings.get("database_url")
    stored: Stored = SqliteStored(folder / "insula.db") if url is None else PostgresStored(url)
    async with serving(folder, **settings) as server:
        key = await server.app("Bench")
        made = await server.deploy(key, light())
    await asyncio.to_thread(fill, stored, made, count)
    if url is not None:
        await asyncio.to_thread(stored.rows, "ANALYZE")  # as autovacuum does in its time
    async with serving(folder, **settings) as server:
        lists: dict[str, dict[str, float]] = {}
        for where, base in (
            ("app", "/apps/c/runs"),
            ("workflow", f"/apps/c/workflows/{made}/runs"),
        ):
            for name, filters in _LISTS.items():
                lists[f"of the {where}, {name}"] = await _pages(server, key, base, filters)
        found: dict[str, Any] = {"stored": count, "lists": lists}
        if not erase:
            return found
        body = {**LIGHT_INPUT, "retention": -1}
        path = f"/apps/c/workflows/{made}/runs"
        data = request("POST", path, key, json.dumps(body).encode())
        before = await drive_apart(server.port, data, _LIVE_CALLERS, 0.5, _BESIDE_SECONDS)
    await asyncio.to_thread(stored.rows, MAKE_DUE)
    found["erase"] = await _erase(folder, settings, stored, data, count, before)
    return found


async def _pages(server: Server, key: str, path: str, filters: dict[str, str]) -> dict[str, float]:
    """Walk pages by cursor, from the start again at the end."""
    if filters.get("since") == "minute":
        filters = {"since": iso(now_ms() - 60_000)}
    return await walk(server.port, path, key, filters, _PAGES)


async def _erase(
    folder: Path,
    settings: dict[str, str],
    stored: Stored,
    data: bytes,
    count: int,
    before: dict[str, float],
) -> dict[str, float]:
    """Open the server on runs that are all due, and drive light runs beside the erasing: for some
    seconds of it, then nothing does. The rate beside is that of those seconds.
    """
    async with serving(folder, **settings) as server:
        began = time.perf_counter()
        live = await drive_apart(server.port, data, _LIVE_CALLERS, 0.5, _BESIDE_SECONDS)
        beside = time.perf_counter() - began
        ((gone,),) = await asyncio.to_thread(stored.rows, GONE)
        while await asyncio.to_thread(stored.rows, LEFT):  # noqa: ASYNC110  another process erases
            await asyncio.sleep(0.1)
        alone = time.perf_counter() - began - beside
    return {
        "rate_beside": gone / beside,
        "rate_alone": (count - gone) / alone,
        "live_p50_ratio": live["p50_ms"] / before["p50_ms"],
        "live_p99_ms": live["p99_ms"],
        "live_p99_ratio": live["p99_ms"] / before["p99_ms"],
    }


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    chosen: Kind = "postgresql" if "postgresql" in sys.argv[2:] else "sqlite"
    found = asyncio.run(measure(asked, chosen, erase="lists" not in sys.argv[2:]))
    print(json.dumps(found, indent=1))
