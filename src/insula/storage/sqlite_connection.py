"""SQLite connections: how they are opened, which of their errors mean "not now", and the
session of the one that writes.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from insula.errors import InsulaError, Unavailable

Synchronous = Literal["FULL", "NORMAL"]

BUSY_TIMEOUT_MS = 5_000
_WRITER_CACHE_KIB = 8_192
_READER_CACHE_KIB = 2_048
_JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024

_NOT_NOW = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_BUSY: "another process holds the database",
    sqlite3.SQLITE_LOCKED: "another process holds the database",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_READONLY: "the database file cannot be written",
    sqlite3.SQLITE_PROTOCOL: "another process holds the database",
}


def create_file(path: Path) -> None:
    """Make the database file, readable by its owner only, if there is none."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def open_writer(path: Path, synchronous: Synchronous) -> tuple[Engine, Connection]:
    """Open the one connection that writes."""

    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        # The order matters: auto_vacuum counts only before the first page is written, which the
        # change to WAL does. secure_delete overwrites what is erased.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT}")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    return engine, engine.connect()


def reading_engine(path: Path) -> Engine:
    """Make the engine whose connections can only read."""

    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=NullPool)


def driver(connection: Connection) -> sqlite3.Connection:
    """Return the driver's own connection, for units whose every microsecond counts.

    An insert costs 2 µs here, 8 µs through ``exec_driver_sql`` and 19 µs through Core.
    """
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def translate(error: BaseException) -> Unavailable | None:
    """Translate an error of the disk, the memory or a lock to what a caller may be told."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, sqlite3.Error):
        return None
    code = getattr(original, "sqlite_errorcode", None)
    reason = _NOT_NOW.get(code & 0xFF) if isinstance(code, int) else None
    if reason is None:
        return None
    return Unavailable(f"Nothing can be stored or read now: {reason}. Try again.", retry_after=1)


class SqliteSession:
    """The writer's connection and its transactions, as ``storage.session.Session``."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self.connection = connection
        self.committed: Callable[[], None] = lambda: None
        """Called after each commit."""
        self._engine = engine
        self._raw = driver(connection)

    def begin(self, serial: bool) -> None:
        """Begin; there is one writer, so every transaction is ``serial``."""
        self._raw.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit; what failed is not committed."""
        self._raw.execute("COMMIT")
        self._forget()
        self.committed()

    def rollback(self) -> None:
        """Undo, unless SQLite already has."""
        self._forget()
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def is_open(self) -> bool:
        """Say whether a transaction is open."""
        return self._raw.in_transaction

    def settle(self, mark: int) -> bool:
        """Never asked: a commit here is answered."""
        raise NotImplementedError(mark)

    def translate(self, error: BaseException) -> InsulaError | None:
        """Translate an error of the disk, the memory or a lock."""
        return translate(error)

    def is_retryable(self, error: BaseException) -> bool:
        """Nobody else writes: the same would happen."""
        return False

    def abort(self) -> None:
        """Nothing here waits for anything far away."""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        self._engine.dispose()

    def _forget(self) -> None:
        """End the transaction that SQLAlchemy began for itself when a unit used it."""
        if self.connection.in_transaction():
            self.connection.rollback()


def _connect(path: Path) -> sqlite3.Connection:
    # No memory map: mapped pages would count as the process's memory and grow with the file.
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,  # transactions are begun by whoever holds the connection
        check_same_thread=False,  # opened by one thread, used by one other, closed by a third
        cached_statements=512,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
