"""Bring a database up to the schema of this program, along one chain, forward only.

The number of the last migration that a database has been through stands in ``facts``.
"""

from importlib import resources
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, inspect

from insula.storage import migrations
from insula.storage.dialect import driver, is_postgres

_FACT = "schema_version"


class NewerSchema(Exception):
    """A later version of the program wrote this database."""


class ForeignFile(Exception):
    """The database belongs to another program."""


class Migration(NamedTuple):
    """One link of the chain: its number and its SQL for one dialect."""

    number: int
    name: str
    statements: tuple[str, ...]


def chain(dialect: str = "sqlite") -> list[Migration]:
    """Return all migrations in order: the files ``NNNN_name.<dialect>.sql``, from 0001 on."""
    links = []
    ending = f".{dialect}.sql"
    for file in resources.files(migrations).iterdir():
        if file.name.endswith(ending):
            number, _, name = file.name.removesuffix(ending).partition("_")
            statements = file.read_text("utf-8").split(";\n")
            links.append(
                Migration(
                    int(number), name, tuple(one.strip() for one in statements if one.strip())
                )
            )
    links.sort()
    assert [link.number for link in links] == list(range(1, len(links) + 1))
    return links


def check_file(path: Path) -> None:
    """Refuse what SQLite would only refuse in the middle.

    Raises:
        ForeignFile: it is no SQLite file.
    """
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise ForeignFile(f"{path} is no SQLite file.")


def version(connection: Connection) -> int:
    """Return the number of the last migration that this database has been through; 0 if new.

    Raises:
        ForeignFile: it has tables, and none of them is ours.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    if "facts" not in tables:
        raise ForeignFile(
            "This database was made by another program. Give an empty "
            + ("database" if is_postgres(connection) else "folder as the data folder")
            + "."
        )
    query = "SELECT value FROM facts WHERE name = ?"
    fact = driver(connection).execute(query, (_FACT,)).fetchone()
    return int(fact[0]) if fact is not None else 0


def migrate(connection: Connection, until: int | None = None) -> int:
    """Apply what is missing, each migration in a transaction of its own; return how many.

    ``connection`` is in autocommit mode and nobody else writes. ``until`` is the last one to apply.

    Raises:
        NewerSchema: the database has been through migrations that this program does not know.
        ForeignFile: the database belongs to another program.
    """
    links = chain(connection.dialect.name)
    current = check_version(connection)
    missing = links[current:until]
    for link in missing:
        _apply(connection, link)
    return len(missing)


def make(connection: Connection, number: int) -> None:
    """Make the schema of that number where there are no tables, in the caller's transaction."""
    for link in chain(connection.dialect.name)[:number]:
        _change(connection, link)


def check_version(connection: Connection) -> int:
    """Return the number of the last migration, 0 if the database is new.

    Raises:
        NewerSchema: the database has been through migrations that this program does not know.
        ForeignFile: the database belongs to another program.
    """
    links = chain(connection.dialect.name)
    current = version(connection)
    connection.rollback()
    if current > len(links):
        raise NewerSchema(
            f"This database was written by a newer version of Insula: its schema is {current}, "
            f"this program knows {len(links)}. Start the newer version, or go back to a backup."
        )
    return current


def _apply(connection: Connection, link: Migration) -> None:
    raw = driver(connection)
    raw.execute("BEGIN" if is_postgres(connection) else "BEGIN IMMEDIATE")
    try:
        _change(connection, link)
        raw.execute("COMMIT")
    except BaseException:
        raw.execute("ROLLBACK")
        raise


def _change(connection: Connection, link: Migration) -> None:
    raw = driver(connection)
    for statement in link.statements:
        raw.execute(statement)
    raw.execute(
        "INSERT INTO facts (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_FACT, str(link.number).encode()),
    )
