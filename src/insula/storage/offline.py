"""A database without a server around it: opened by commands, for what an operator does by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import Cursor
from sqlalchemy import Connection, text

from insula.storage.dialect import is_postgres, now_ms
from insula.storage.migrate import check_file
from insula.storage.postgres import MIGRATION_LOCK
from insula.storage.postgres_connection import Limits, make_engine, raw_of
from insula.storage.sqlite_connection import create_file, open_writer, reading_engine
from insula.storage.tables import nodes

_NAME = "insula db"
_LOCK_MS = 10_000


@contextmanager
def open_file(path: Path) -> Iterator[Connection]:
    """Open an SQLite file for writing, made if it is not there. The folder's lock is the caller's.

    Raises:
        ForeignFile: it is no SQLite file.
    """
    check_file(path)
    create_file(path)
    engine, connection = open_writer(path, "FULL")
    try:
        yield connection
    finally:
        connection.close()
        engine.dispose()


@contextmanager
def read_file(path: Path) -> Iterator[Connection]:
    """Open an SQLite file for reading, beside whoever writes.

    Raises:
        FileNotFoundError: it is not there.
        ForeignFile: it is no SQLite file.
    """
    if not path.is_file():
        raise FileNotFoundError(str(path))
    check_file(path)
    engine = reading_engine(path)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def open_server(url: str, read_only: bool = False) -> Iterator[Connection]:
    """Open a PostgreSQL database; statements may take as long as they need.

    Unless it is to be read only, no server starts on it meanwhile.
    """
    engine = make_engine(url, _NAME, Limits(0, _LOCK_MS, 0, read_only))
    try:
        with engine.connect() as connection:
            # SQLAlchemy looks at schemas in the text form.
            raw_of(connection).cursor_factory = Cursor
            if not read_only:  # a server that starts meanwhile waits
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
            yield connection
    finally:
        engine.dispose()


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Let all reading in the block see one moment."""
    if is_postgres(connection):
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    else:
        connection.exec_driver_sql("BEGIN")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK")


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Store all that is written in the block, or nothing of it."""
    connection.exec_driver_sql("BEGIN" if is_postgres(connection) else "BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def living_nodes(connection: Connection) -> list[str]:
    """Return the names of the nodes whose leases have not run out; none where it has no tables."""
    present = connection.dialect.has_table(connection, nodes.name)
    if not present:
        return []
    alive = nodes.c.expires_at > now_ms(connection)
    return list(connection.scalars(nodes.select().with_only_columns(nodes.c.name).where(alive)))


def faults(connection: Connection) -> list[str]:
    """Return what the database itself finds wrong with its file; PostgreSQL is not asked."""
    if is_postgres(connection):
        return []
    found = [row[0] for row in connection.execute(text("PRAGMA integrity_check")) if row[0] != "ok"]
    for table, row, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        found.append(f"row {row} of {table} refers to a row of {parent} that is not there")
    return found


def shrinks(connection: Connection) -> bool:
    """Say whether the database gives the space of erased rows back to the disk."""
    if is_postgres(connection):
        return True
    incremental = 2
    return bool(connection.execute(text("PRAGMA auto_vacuum")).scalar_one() == incremental)
