"""The chain of migrations, on both databases: from every schema there ever was, with data in it."""

import asyncio
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Connection,
    Float,
    Integer,
    LargeBinary,
    column,
    create_engine,
    inspect,
    table,
)
from sqlalchemy import insert as insert_into
from tests.postgres import PostgresServer

from insula.storage import counters
from insula.storage.dialect import driver
from insula.storage.migrate import ForeignFile, NewerSchema, chain, migrate, version
from insula.storage.postgres import open_postgres
from insula.storage.postgres_connection import Limits, make_engine
from insula.storage.tables import metadata

_CATALOGS = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               o.collname, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_collation o ON o.oid = a.attcollation
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
          AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY c.relname, a.attnum""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        ORDER BY indexname""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2""",
}
_LIMITS = Limits(10_000, 10_000, 10_000)


def catalogs(connection: Connection) -> dict[str, list[Any]]:
    raw = driver(connection)
    return {name: raw.execute(query).fetchall() for name, query in _CATALOGS.items()}


def open_server(url: str) -> Connection:
    return make_engine(url, "test", _LIMITS).connect()


@pytest.fixture(params=["sqlite", "postgres"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    if request.param == "sqlite":
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(":memory:", isolation_level=None)
        )
        opened = engine.connect()
    else:
        opened = open_server(request.getfixturevalue("postgres_url"))
    yield opened
    opened.close()
    opened.engine.dispose()


def test_all_migrations_make_what_tables_says_on_postgresql(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    other = postgres_server.create()
    with open_server(postgres_url) as migrated, open_server(other) as fresh:
        migrate(migrated)
        metadata.create_all(fresh)
        assert catalogs(migrated) == catalogs(fresh)
        kinds = {collation for *_, collation, _ in catalogs(fresh)["columns"]}
        assert kinds <= {"C", None}  # text is compared byte by byte, everywhere
    postgres_server.drop(other)


def fill(connection: Connection) -> dict[str, Any]:
    """Put a row into every table there is; return all rows."""
    found = inspect(connection)
    rows = {}
    # Those that others refer to come first.
    for name, _ in found.get_sorted_table_and_fkc_names():
        if name is not None and name != "facts":
            row = {each["name"]: value(each["type"]) for each in found.get_columns(name)}
            target = table(name, *[column(each) for each in row])
            connection.execute(insert_into(target).values(row))
            rows[name] = row
    connection.rollback()
    return rows


def value(kind: Any) -> Any:
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, Integer):  # a big one too
        return 7
    if isinstance(kind, Float):
        return 1.5
    return b"[]" if isinstance(kind, LargeBinary) else "x"


@pytest.mark.parametrize("number", range(1, len(chain())))
def test_an_upgrade_keeps_the_data(connection: Connection, number: int) -> None:
    assert migrate(connection, until=number) == number
    rows = fill(connection)
    assert migrate(connection) == len(chain()) - number
    for name, row in rows.items():
        names = ", ".join(f'"{column}"' for column in row)
        kept = driver(connection).execute(f"SELECT {names} FROM {name}").fetchall()
        assert [tuple(one) for one in kept] == [tuple(row.values())], name
    assert counters.count(connection, "x") == 7
    connection.rollback()
    assert migrate(connection) == 0


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(connection)
    links = chain(connection.dialect.name)
    broken = links[0]._replace(
        number=len(links) + 1, statements=("CREATE TABLE extra (id TEXT)", "SELECT 1 FROM nowhere")
    )
    monkeypatch.setattr("insula.storage.migrate.chain", lambda dialect: [*links, broken])
    with pytest.raises(Exception, match="nowhere"):
        migrate(connection)
    with pytest.raises(Exception, match="extra"):
        driver(connection).execute("SELECT * FROM extra")
    assert version(connection) == len(links)


def test_both_chains_have_the_same_links() -> None:
    assert [link[:2] for link in chain("sqlite")] == [link[:2] for link in chain("postgresql")]


def test_a_newer_schema_is_refused(connection: Connection) -> None:
    migrate(connection)
    driver(connection).execute("UPDATE facts SET value = ? WHERE name = 'schema_version'", (b"99",))
    with pytest.raises(NewerSchema, match=r"newer version of Insula: its schema is 99.*knows \d"):
        migrate(connection)


def test_a_database_of_another_program_is_refused(connection: Connection) -> None:
    driver(connection).execute("CREATE TABLE notes (words TEXT)")
    with pytest.raises(ForeignFile, match=r"another program. Give an empty (database|folder)"):
        migrate(connection)


async def test_several_processes_that_start_at_once_migrate_once(postgres_url: str) -> None:
    opened = await asyncio.gather(*[open_postgres(postgres_url, readers=1) for _ in range(4)])
    for database in opened:
        assert await database.read(version) == len(chain())
        await database.close()
