"""The database on a server: PostgreSQL behind ``storage.database.Database``."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, TypeVar

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from insula.errors import Unavailable
from insula.storage.dialect import driver
from insula.storage.migrate import check_version, migrate
from insula.storage.postgres_address import DatabaseAway, DatabaseUnusable, describe
from insula.storage.postgres_connection import (
    Limits,
    execute_simple,
    is_conflict,
    is_read_only,
    raw_of,
    translate,
)
from insula.storage.postgres_reader import PostgresSource
from insula.storage.postgres_session import Line, PostgresSession, sweep_marks
from insula.storage.reader import Readers
from insula.storage.writer import Writer

T = TypeVar("T")

OLDEST = 14
"""The oldest major version of the server."""
_SLOTS = 16
MIGRATION_LOCK = 0x1A5C_5E70
"""Whoever changes the schema, or everything, holds this advisory lock of the database."""
_RISKS = {
    "fsync": "a power cut may lose what was told, or destroy the whole database",
    "full_page_writes": "a power cut may leave pages that are half written",
}
_SWITCH_INTERVAL = 500e-6
_GROUP_DEADLINE = 10.0
# A process that is paused in the middle of a transaction must not hold its locks for long.
_WRITING = Limits(statement_ms=10_000, lock_ms=5_000, idle_in_transaction_ms=2_000)
_AUTOCOMMIT = Limits(statement_ms=3_000, lock_ms=2_000, idle_in_transaction_ms=2_000)
_MAINTAINING = Limits(statement_ms=0, lock_ms=60_000, idle_in_transaction_ms=60_000)


async def open_postgres(
    url: str,
    readers: int = 4,
    name: str = "insula",
    slot: int | None = None,
    *,
    durable: bool = True,
) -> "PostgresDatabase":
    """Open the database at this URL, brought up to date if need be.

    ``name`` is what the server's administrator sees; ``slot`` is where this process counts. Without
    ``durable`` a server whose default it is may tell of commits that are not on its disk yet.

    Raises:
        DatabaseUnusable: it cannot be reached or used; says what to do, without the password.
        NewerSchema: a later version of the program wrote it.
        ForeignFile: it belongs to another program.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
    await asyncio.to_thread(_prepare, url, name)
    chosen = secrets.randbelow(_SLOTS) if slot is None else slot
    line = Line(url, name, _WRITING, chosen, durable)
    try:
        await asyncio.to_thread(line.connect)
    except (DBAPIError, psycopg.Error) as error:  # it may have gone away just now
        raise DatabaseAway(_words(describe(url), error)) from None
    return PostgresDatabase(url, name, line, readers)


class Seen(NamedTuple):
    """What is at a URL, in words, and by what its server may lose what it was told to keep."""

    words: str
    risks: list[str]


async def look(url: str) -> Seen:
    """Say what is at this URL, and change nothing.

    Raises:
        DatabaseUnusable: nothing that this program could use.
        NewerSchema: what a later version of the program wrote.
        ForeignFile: what belongs to another program.
    """

    def ask() -> Seen:
        with _usable(url, "insula doctor") as (where, line):
            found = check_version(line.connection)
            schema = f"schema {found}" if found else "empty: the first start makes the tables"
            release = raw_of(line.connection).info.server_version // 10_000
            return Seen(f"{where}: PostgreSQL {release}, {schema}", _risks(line.connection))

    return await asyncio.to_thread(ask)


def _prepare(url: str, name: str) -> None:
    """Look at the server, and migrate while no other process does."""
    with _usable(url, name) as (_, line):
        execute_simple(line.raw, b"SELECT pg_advisory_lock(%d)" % MIGRATION_LOCK)
        migrate(line.connection)
        sweep_marks(line.raw)


@contextmanager
def _usable(url: str, name: str) -> Iterator[tuple[str, Line]]:
    """Connect to a database that this program can use; what its server says becomes words."""
    try:
        where = describe(url)
    except ValueError as error:
        raise DatabaseUnusable(f"INSULA_DATABASE_URL {error}.") from None
    line = Line(url, name, _MAINTAINING)
    try:
        line.connect()
        _check(where, line.connection)
        yield where, line
    except (DBAPIError, psycopg.Error) as error:
        raise DatabaseAway(_words(where, error)) from None
    finally:
        line.close()


def _check(where: str, connection: Connection) -> None:
    major = raw_of(connection).info.server_version // 10_000
    if major < OLDEST:
        raise DatabaseUnusable(
            f"The server of {where} is PostgreSQL {major}; {OLDEST} or newer is needed."
        )
    encoding = driver(connection).execute("SHOW server_encoding").fetchone()[0]
    if encoding != "UTF8":
        raise DatabaseUnusable(
            f"The database {where} has the encoding {encoding}. Create it with ENCODING 'UTF8'."
        )


def _risks(connection: Connection) -> list[str]:
    raw = driver(connection)
    states = {name: raw.execute(f"SHOW {name}").fetchone()[0] for name in _RISKS}
    return [f"{name} is off: {_RISKS[name]}" for name, state in states.items() if state == "off"]


def _words(where: str, error: BaseException) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    said = " ".join(str(original).split())
    return f"The database {where} cannot be used (INSULA_DATABASE_URL): {said}"


class PostgresDatabase:
    """One writer, many readers, and connections beside them. Made by ``open_postgres``."""

    background_is_free = True

    def __init__(self, url: str, name: str, line: Line, readers: int) -> None:
        self._readers = Readers(PostgresSource(url, f"{name} reader"), readers)
        self._writer = Writer(PostgresSession(line), _GROUP_DEADLINE)
        self._autocommit = _OwnConnection(Line(url, f"{name} lease", _AUTOCOMMIT))
        self._background = _OwnConnection(Line(url, f"{name} background", _WRITING))
        self._maintaining = _OwnConnection(Line(url, f"{name} vacuum", _MAINTAINING))

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit in the next group and return its value once the group is committed.

        Cancelling the awaiting task does not withdraw the unit: what was submitted is committed.

        Raises:
            Unavailable: the server cannot be reached, or cannot store anything, or too much
                waits. Nothing of the unit was stored. What was on its way when the connection was
                lost is told once the server has said what became of it; where this process ends
                before, that it is not known.
        """
        result: T = await self._writer.submit(unit)
        return result

    def submit(self, unit: Callable[[Connection], T], fenced: bool = False) -> asyncio.Future[T]:
        """Queue the unit for the next group, without waiting; as ``write`` otherwise."""
        return self._writer.submit(unit, serial=not fenced)

    async def autocommit(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit at once; each of its statements is a transaction. Cancelling the awaiting
        task hangs up."""
        return await self._autocommit.run(unit)

    async def background(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit in a transaction of its own, on a connection of its own. Cancelling the
        awaiting task hangs up.

        Raises:
            Unavailable: as ``write``, and where it came into another transaction's way.
        """
        return await self._background.run(partial(_in_transaction, unit))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query against what is committed, beside the writer, in one snapshot."""
        return await self._readers.read(query)

    async def reclaim(self) -> None:
        """Make the space of erased rows free for others, off everybody's path."""
        await self._maintaining.run(_vacuum)

    async def close(self) -> None:
        """Commit what was submitted, then close every connection."""
        await self._readers.close()
        await self._autocommit.close()
        await self._background.close()
        await self._maintaining.close()
        await self._writer.close()


def _vacuum(connection: Connection) -> None:
    # Where another process is at it already there is nothing to do.
    driver(connection).execute("VACUUM (SKIP_LOCKED) run_data, run_events, runs")


def _in_transaction(unit: Callable[[Connection], T], connection: Connection) -> T:
    raw = raw_of(connection)
    execute_simple(raw, b"BEGIN; SET LOCAL synchronous_commit TO off")
    try:
        result = unit(connection)
        if execute_simple(raw, b"COMMIT").command_status != b"COMMIT":
            raise RuntimeError("A unit went on after a statement that failed.")
    except BaseException as error:
        if not raw.closed:
            with suppress(psycopg.Error):  # the first error is the one to tell
                execute_simple(raw, b"ROLLBACK")
        if is_conflict(error):
            raise Unavailable("Another transaction stands in the way.", retry_after=1) from error
        raise
    return result


class _OwnConnection:
    """A connection for statements that are transactions of their own, one unit at a time."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="insula-beside")

    async def run(self, unit: Callable[[Connection], T]) -> T:
        """Run a unit; a second time on a new connection if the first one was lost."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._run, unit)
        try:
            return await running
        except asyncio.CancelledError:
            self._line.abort()
            raise

    async def close(self) -> None:
        """Hang up and end the thread."""
        self._line.abort()
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        self._line.close()

    def _run(self, unit: Callable[[Connection], T]) -> T:
        line = self._line
        try:
            rested = not line.is_lost()
            if not rested:
                line.connect()
            try:
                return _finish(line, unit)
            except (DBAPIError, psycopg.Error):
                if not (rested and line.is_lost()):
                    raise
            line.connect()
            return _finish(line, unit)
        except Exception as error:
            if is_read_only(error):
                line.drop()  # another host takes writes by now
            answer = translate(error)
            if answer is None:
                raise
            raise answer from error


def _finish(line: Line, unit: Callable[[Connection], T]) -> T:
    connection = line.connection
    try:
        return unit(connection)
    finally:
        if not line.is_lost() and connection.in_transaction():
            connection.rollback()
