"""The database in one file: SQLite behind ``storage.database.Database``."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from insula.storage.migrate import check_file, migrate
from insula.storage.reader import Readers
from insula.storage.sqlite_checkpoint import BACKSTOP_PAGES, Checkpoints
from insula.storage.sqlite_connection import (
    BUSY_TIMEOUT_MS,
    SqliteSession,
    Synchronous,
    create_file,
    driver,
    open_writer,
)
from insula.storage.sqlite_reader import SqliteSource
from insula.storage.writer import Writer

T = TypeVar("T")

_SWITCH_INTERVAL = 500e-6
_PAGES_A_STEP = 256
_FREE_SHARE = 0.02  # of the file: what the next rows would ask for again at once
_CHECKPOINT_WAIT_MS = 20


async def open_sqlite(
    path: Path, synchronous: Synchronous = "FULL", readers: int = 4
) -> "SqliteDatabase":
    """Open the database in this file, made and brought up to date if need be.

    ``FULL`` survives a power cut with everything that was told; ``NORMAL`` is faster, and a power
    cut may take the last moments. Neither loses anything when the process dies.

    Lowers the interpreter's switch interval: the writer's thread has to come to its turn beside a
    busy loop, and with the default of 5 ms it would wait for seconds.

    Raises:
        NewerSchema: a later version of the program wrote the file.
        ForeignFile: the file is not a database of this program.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
    session = await asyncio.to_thread(_open, path, synchronous)
    return SqliteDatabase(path, session, readers)


def _open(path: Path, synchronous: Synchronous) -> SqliteSession:
    check_file(path)
    create_file(path)
    engine, connection = open_writer(path, synchronous)
    try:
        migrate(connection)
        driver(connection).execute(f"PRAGMA wal_autocheckpoint = {BACKSTOP_PAGES}")
    except BaseException:
        connection.close()
        engine.dispose()
        raise
    return SqliteSession(engine, connection)


class SqliteDatabase:
    """One writer, many readers. Made by ``open_sqlite``."""

    background_is_free = False

    def __init__(self, path: Path, session: SqliteSession, readers: int) -> None:
        self.path = path
        self._readers = Readers(SqliteSource(path), readers)
        self._writer = Writer(session)
        self._checkpoints = Checkpoints(path)
        session.committed = self._checkpoints.note

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit in the next group and return its value once the group is committed.

        Cancelling the awaiting task does not withdraw the unit: what was submitted is committed.

        Raises:
            Unavailable: the disk is full or failing, another process holds the file, or too much
                waits. Nothing of the unit was stored.
        """
        result: T = await self._writer.submit(unit)
        return result

    def submit(self, unit: Callable[[Connection], T], fenced: bool = False) -> asyncio.Future[T]:
        """Queue the unit for the next group, without waiting; as ``write`` otherwise."""
        return self._writer.submit(unit)

    async def autocommit(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit as ``write`` does: there is one writer."""
        return await self.write(unit)

    async def background(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit as ``write`` does: there is one writer."""
        return await self.write(unit)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query against what is committed, beside the writer, in one snapshot."""
        return await self._readers.read(query)

    async def reclaim(self) -> None:
        """Give the space of erased rows back to the disk, and empty the write-ahead log, where
        copies of them may stand. Holds the writer for a few milliseconds at a time.
        """
        while await self._writer.submit(_free_pages) > 0:
            continue
        await self._writer.submit(self._empty_log, outside=True)

    async def close(self) -> None:
        """Commit what was submitted, then close every connection."""
        await self._readers.close()
        await self._writer.close()
        await asyncio.to_thread(self._checkpoints.close)

    def _empty_log(self, connection: Connection) -> None:
        with self._checkpoints.lock:
            _empty_log(connection)


def _free_pages(connection: Connection) -> int:
    """Give back some pages; return how many more there are to give, and 0 where none goes: a file
    that another program has made from this one's rows may keep what it has."""
    raw = driver(connection)
    before: int = raw.execute("PRAGMA freelist_count").fetchone()[0]
    raw.execute(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})").fetchall()
    free: int = raw.execute("PRAGMA freelist_count").fetchone()[0]
    pages: int = raw.execute("PRAGMA page_count").fetchone()[0]
    return 0 if free == before else free - int(pages * _FREE_SHARE)


def _empty_log(connection: Connection) -> None:
    """Checkpoint and truncate; where a reader still needs the log it stays until the next time."""
    raw = driver(connection)
    raw.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
    try:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
