"""Databases for tests: with the tables of this program in them, and no rows.

Making one takes a server 0.2 s, emptying one 2 ms: what a test leaves as new but for its rows, the
next one gets. A file begins as a copy of one that was migrated once.
"""

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

from insula.storage.migrate import migrate
from insula.storage.opening import FILE
from insula.storage.postgres_connection import Limits, make_engine
from insula.storage.sqlite_connection import create_file, open_writer
from tests.postgres import PostgresServer

_SMALL = 4_000_000
"""Bytes of rows, above which a database is dropped: emptied, it would still be as large."""
_SHAPE = """
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
       (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
       (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),
       (SELECT count(*) FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
         WHERE d.datname = current_database()),
       (SELECT count(*) FROM pg_statistic WHERE starelid >= 16384),
       (SELECT count(*) FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND reltuples > 0)
"""
_HANG_UP = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""


class Lender:
    """Lends databases of one server, and empties what comes back."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._free: list[str] = []
        url = server.create()
        self._template = url.rpartition("/")[2]
        engine = make_engine(url, "template", Limits(0, 0, 0))
        with engine.connect() as connection:
            migrate(connection)
        engine.dispose()
        with psycopg.connect(url, autocommit=True) as plain:
            self._shape = plain.execute(_SHAPE).fetchone()
            self._size = _size(plain)
            tables = plain.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            emptied = [f"DELETE FROM {name}" for (name,) in tables if name != "facts"]
            facts = plain.execute("SELECT name FROM facts").fetchall()
        kept = ", ".join(f"'{name}'" for (name,) in facts)
        # References are not looked at: everything goes.
        begin = "SET session_replication_role = replica"
        last = f"DELETE FROM facts WHERE name NOT IN ({kept})"
        self._empty = ";".join([begin, *emptied, last]).encode()

    def lend(self, *, new: bool = False) -> str:
        """Return the URL of a database that nobody else uses, or has used if it is to be ``new``:
        a planner sees the pages that emptied tables and indexes still have."""
        if new or not self._free:
            return self._server.create(self._template)
        return self._free.pop()

    def take_back(self, url: str) -> None:
        """Empty a database for the next one, or drop it if more than its rows is different."""
        with psycopg.connect(url, autocommit=True) as plain:
            plain.execute(_HANG_UP)
            as_new = plain.execute(_SHAPE).fetchone() == self._shape
            if as_new and _size(plain) - self._size < _SMALL:
                plain.execute(self._empty)
                self._free.append(url)
                return
        self._server.drop(url)


def _size(plain: "psycopg.Connection[tuple[int]]") -> int:
    found = plain.execute(_SIZE).fetchone()
    assert found is not None
    return int(found[0])


@pytest.fixture(scope="session")
def lender(postgres_server: PostgresServer) -> Lender:
    """The databases of this session's server."""
    return Lender(postgres_server)


@pytest.fixture
def tables_url(request: pytest.FixtureRequest, lender: Lender) -> Iterator[str]:
    """The URL of a database of PostgreSQL with the tables of this program; where a module says
    ``NEW_DATABASE = True``, one that nobody has used."""
    url = lender.lend(new=getattr(request.module, "NEW_DATABASE", False))
    yield url
    lender.take_back(url)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let modules choose the databases of ``database_url``: ``DATABASES = ("sqlite", "postgres")``;
    without it, SQLite."""
    if "database_url" in metafunc.fixturenames:
        chosen = getattr(metafunc.module, "DATABASES", ("sqlite",))
        metafunc.parametrize("database_url", chosen, indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str | None:
    """The URL of a database with the tables of this program, ``None`` for SQLite."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("tables_url")
    return url


def prepare(folder: Path) -> None:
    """Put the file of a new installation into a folder, unless there is one."""
    path = folder / FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        create_file(path)
        path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / FILE
        create_file(path)
        engine, connection = open_writer(path, "NORMAL")
        migrate(connection)
        connection.close()
        engine.dispose()
        return path.read_bytes()
    finally:
        shutil.rmtree(folder)


def share_compiled() -> None:
    """Let all engines of this process share what SQLAlchemy compiled, which it keeps for each
    engine by itself: every installation that a test opens would compile the same again."""
    shared: LRUCache[object, object] = LRUCache(4_000)
    for kind in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        # What is compiled is kept under the dialect it was compiled for.
        kind.__eq__ = lambda one, other: type(one) is type(other)  # type: ignore[method-assign, assignment]
        kind.__hash__ = lambda one: hash(type(one))  # type: ignore[method-assign, assignment]

    def use(connection: Connection) -> None:
        connection.execution_options(compiled_cache=shared)

    event.listen(Engine, "engine_connect", use)
