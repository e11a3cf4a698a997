"""The floor under every run: how many commits a second the disk and the writer give, to one caller
and to many, with FULL and with NORMAL. Bounded to a few seconds; prints a table.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop
from sqlalchemy import Connection

from insula.storage.sqlite import SqliteDatabase, open_sqlite
from insula.storage.sqlite_connection import Synchronous, driver

SECONDS = 0.6
WRITERS = (1, 16, 64)
_EVENTS = b'[{"e":"step","at":1700000000000,"key":"first","type":"code"}]' * 4


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


async def _rate(database: SqliteDatabase, writers: int) -> float:
    begun = time.perf_counter()
    until = begun + SECONDS
    counts = await asyncio.gather(
        *[_write(database, f"{writers}-{number}", until) for number in range(writers)]
    )
    return sum(counts) / (time.perf_counter() - begun)


async def _write(database: SqliteDatabase, run_id: str, until: float) -> int:
    count = 0

    def unit(connection: Connection) -> None:
        driver(connection).execute(
            "INSERT INTO run_events (run_id, seq, events) VALUES (?, ?, ?)",
            (run_id, count, _EVENTS),
        )

    while time.perf_counter() < until:
        count += 1
        await database.write(unit)
    return count


def main() -> None:
    """Print the figures."""
    for name, rate in uvloop.run(measure()).items():
        print(f"{name:<24}{rate:>10,.0f} commits/s")


if __name__ == "__main__":
    main()
