import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from insula.storage.migrate import ForeignFile, NewerSchema, chain, migrate, version
from insula.storage.sqlite import open_sqlite
from insula.storage.sqlite_connection import driver
from insula.storage.tables import metadata

Shape = dict[str, object]


def open_memory() -> Connection:
    return create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(":memory:", isolation_level=None)
    ).connect()


def shape(connection: Connection) -> Shape:
    """Tables with their columns, keys and kind, and indexes with their columns and conditions."""
    raw = driver(connection)
    tables = [
        name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    found: Shape = {}
    for table in tables:
        found[table] = raw.execute(f"PRAGMA table_xinfo({table})").fetchall()
        found[f"{table}: foreign keys"] = raw.execute(
            f"PRAGMA foreign_key_list({table})"
        ).fetchall()
        kind = raw.execute("SELECT wr, strict FROM pragma_table_list WHERE name = ?", (table,))
        found[f"{table}: kind"] = kind.fetchall()
        for _, index, unique, origin, partial in raw.execute(f"PRAGMA index_list({table})"):
            columns = raw.execute(f"PRAGMA index_xinfo({index})").fetchall()
            found[f"index {index}"] = (table, unique, origin, partial, columns, where(raw, index))
    return found


def where(raw: sqlite3.Connection, index: str) -> str:
    row = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (index,)).fetchone()
    text: str = (row and row[0]) or ""  # an index that a key implies has no text of its own
    return " ".join(text.partition("WHERE")[2].split())


def statements() -> str:
    """What ``tables.py`` comes to, for whoever writes the next migration."""
    with open_memory() as connection:
        lines = []
        for table in metadata.sorted_tables:
            lines.append(str(CreateTable(table).compile(connection)).strip())
            lines += [str(CreateIndex(index).compile(connection)) for index in table.indexes]
        return ";\n".join(lines)


def test_all_migrations_make_what_tables_says() -> None:
    with open_memory() as migrated, open_memory() as fresh:
        migrate(migrated)
        metadata.create_all(fresh)
        assert shape(migrated) == shape(fresh), (
            f"Write the next migration. tables.py says:\n{statements()}"
        )


def test_migrating_twice_changes_nothing() -> None:
    with open_memory() as connection:
        assert version(connection) == 0
        assert migrate(connection) == len(chain())
        assert migrate(connection) == 0
        assert version(connection) == len(chain())


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "insula.db"
    await (await open_sqlite(path)).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE facts SET value = '99' WHERE name = 'schema_version'")
    raw.close()
    with pytest.raises(NewerSchema, match=r"newer version of Insula: its schema is 99.*knows \d"):
        await open_sqlite(path)


async def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "insula.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE notes (text)")
    raw.close()
    with pytest.raises(ForeignFile, match="another program"):
        await open_sqlite(path)
