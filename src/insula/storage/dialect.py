"""What differs between the databases where one statement has to fit both: the driver below
SQLAlchemy, the clock, and the insert that may conflict.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, cast

from psycopg import Connection as PostgresConnection
from sqlalchemy import BigInteger, ColumnElement, Connection, Table, literal, literal_column
from sqlalchemy.dialects import postgresql, sqlite

from insula.kit import clock
from insula.storage.postgres_pipeline import Command, pipeline_of

Parameters = Sequence[Any] | Mapping[str, Any]


class Rows(Protocol):
    """What a statement returned."""

    @property
    def rowcount(self) -> int:
        """How many rows it wrote."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, ``None`` after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Driver(Protocol):
    """A driver's own connection, for units whose every microsecond counts.

    Placeholders are ``?`` or ``:name``, one kind in a statement, on both databases.
    """

    def execute(self, sql: str, parameters: Parameters = (), /) -> Rows:
        """Execute a statement."""
        ...


class _Postgres:
    """psycopg with the placeholders of SQLite."""

    __slots__ = ("_connection",)

    def __init__(self, connection: "PostgresConnection[Any]") -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Parameters = (), /) -> Rows:
        if not parameters:
            return self._connection.execute(sql.encode())
        return self._connection.execute(_placeholders(sql), parameters)


def driver(connection: Connection) -> Driver:
    """Return the driver's own connection.

    On SQLite an insert costs 2 µs here, 8 µs through ``exec_driver_sql`` and 19 µs through Core.
    """
    raw = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        return cast(Driver, raw)
    assert isinstance(raw, PostgresConnection)
    return _Postgres(raw)


def control(connection: Connection, command: str) -> None:
    """Execute what sets a savepoint, or goes back to one.

    Of a ``ROLLBACK TO`` that psycopg sends it concludes that nothing is prepared any more.
    """
    if is_postgres(connection):
        pipeline_of(connection).ask(Command(command.encode(), as_is=True))
    else:
        driver(connection).execute(command)


def withdraw_deferred(connection: Connection) -> None:
    """Leave unsent what a unit that failed has deferred."""
    if is_postgres(connection):
        pipeline_of(connection).withdraw()


def is_postgres(connection: Connection) -> bool:
    """Say which of the two databases is behind a connection."""
    return connection.dialect.name == "postgresql"


def by_index(connection: Connection, name: str) -> str:
    """Return what stands behind a table's name for its rows to be found by an index.

    SQLite gathers no figures about the rows, so it would have to guess; if the index cannot serve,
    the statement fails. PostgreSQL knows better, and has no such words.
    """
    return "" if is_postgres(connection) else f"INDEXED BY {name}"


def now_ms(connection: Connection) -> ColumnElement[int]:
    """Return the time of the database in Unix milliseconds, as an expression.

    PostgreSQL's own clock, in the moment of its evaluation; of SQLite it is this machine's.
    """
    if is_postgres(connection):
        return literal_column(
            "(extract(epoch FROM clock_timestamp()) * 1000)::bigint", type_=BigInteger()
        )
    return literal(clock.now_ms(), BigInteger())


def insert(connection: Connection, table: Table) -> sqlite.Insert:
    """Return an insert that knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    if is_postgres(connection):
        # The two classes have the same methods, and no base that has them.
        return cast(sqlite.Insert, postgresql.insert(table))
    return sqlite.insert(table)


_MARKS = re.compile(r"'[^']*'|\"[^\"]*\"|::|%|\?|:([A-Za-z_]\w*)")


@lru_cache(1024)
def _placeholders(sql: str) -> bytes:
    def written(found: re.Match[str]) -> str:
        mark = found[0]
        if found[1]:
            return f"%({found[1]})s"
        return "%s" if mark == "?" else mark.replace("%", "%%")

    return _MARKS.sub(written, sql).encode()
