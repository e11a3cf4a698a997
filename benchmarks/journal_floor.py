"""The floor under every run: how many commits a second the disk and the writer give, to one caller
and to many, on SQLite with FULL and with NORMAL, and on PostgreSQL; and under that, what psycopg
alone gives to one caller. Bounded to a few seconds; prints a table.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg
import uvloop
from sqlalchemy import Connection

from benchmarks.databases import postgres
from insula.storage.database import Database
from insula.storage.postgres import open_postgres
from insula.storage.rows import insert_rows
from insula.storage.sqlite import open_sqlite
from insula.storage.sqlite_connection import Synchronous
from insula.storage.tables import run_events

SECONDS = 0.6
WRITERS = (1, 16, 64)
_EVENTS = b'[{"e":"step","at":1700000000000,"key":"first","type":"code"}]' * 4
_COLUMNS = ("run_id", "seq", "events")


async def measure() -> dict[str, float]:
    """Return commits a second as they are told to callers, by ``<synchronous>_<writers>``."""
    figures = {}
    levels: tuple[Synchronous, ...] = ("FULL", "NORMAL")
    for synchronous in levels:
        with tempfile.TemporaryDirectory(prefix="insula-floor-") as folder:
            database = await open_sqlite(Path(folder) / "floor.db", synchronous)
            try:
                for writers in WRITERS:
                    name = f"journal_{synchronous.lower()}_{writers}"
                    figures[name] = await _rate(database, writers)
            finally:
                await database.close()
    return figures


async def measure_postgres() -> dict[str, float]:
    """Return commits a second as they are told to callers, and those of a bare loop."""
    figures = {}
    async with postgres() as server:
        url = server.create()
        database = await open_postgres(url)
        try:
            for writers in WRITERS:
                figures[f"journal_postgresql_{writers}"] = await _rate(database, writers)
        finally:
            await database.close()
        figures["bare_postgresql_1"] = await asyncio.to_thread(_bare, url)
    return figures


def _bare(url: str) -> float:
    """Commit one row after another, each as one statement in one round trip."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection:
        begun = time.perf_counter()
        count = 0
        while time.perf_counter() - begun < SECONDS:
            count += 1
            connection.execute("INSERT INTO run_events VALUES (%s, %s, %s)", ("b", count, _EVENTS))
        return count / (time.perf_counter() - begun)


async def _rate(database: Database, writers: int) -> float:
    begun = time.perf_counter()
    until = begun + SECONDS
    counts = await asyncio.gather(
        *[_write(database, f"{writers}-{number}", until) for number in range(writers)]
    )
    return sum(counts) / (time.perf_counter() - begun)


async def _write(database: Database, run_id: str, until: float) -> int:
    count = 0

    def unit(connection: Connection) -> None:
        insert_rows(connection, run_events, _COLUMNS, [(run_id, count, _EVENTS)])

    while time.perf_counter() < until:
        count += 1
        await database.submit(unit, fenced=True)
    return count


def main() -> None:
    """Print the figures."""
    for name, rate in {**uvloop.run(measure()), **uvloop.run(measure_postgres())}.items():
        print(f"{name:<24}{rate:>10,.0f} commits/s")


if __name__ == "__main__":
    main()
