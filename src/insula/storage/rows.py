"""Statements that write many rows at once: on SQLite one place for each value, on PostgreSQL one
array for each column, so that one prepared statement serves every number of rows.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Table

from insula.storage.dialect import driver, is_postgres
from insula.storage.postgres_arrays import KINDS, TEXT, Kind, encode_array
from insula.storage.postgres_pipeline import Command, pipeline_of

T = TypeVar("T")
Row = Sequence[Any]

_AT_ONCE = {"sqlite": 64, "postgresql": 512}


class Statement(NamedTuple):
    """A statement of PostgreSQL that takes an array for each of some columns, and then texts."""

    text: bytes
    kinds: tuple[Kind, ...]
    types: tuple[int, ...]

    def of(self, rows: Sequence[Row], texts: Sequence[str] = ()) -> Command:
        """Return it with these rows."""
        columns = zip(self.kinds, zip(*rows, strict=True), strict=True)
        values = [encode_array(kind, column) for kind, column in columns]
        return Command(self.text, [*values, *(text.encode() for text in texts)], self.types)


def parts(connection: Connection, items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Divide what one call would write into what one statement should."""
    size = _AT_ONCE[connection.dialect.name]
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_rows(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    rows: Sequence[Row],
    conflict: str = "",
) -> None:
    """Insert rows; ``conflict`` is an ``ON CONFLICT`` clause.

    On PostgreSQL they go out with the next statement that has an answer, at the latest with the
    commit; what is wrong with them is raised then.
    """
    if is_postgres(connection):
        insert = _insert_arrays(table, columns, conflict)
        for some in parts(connection, rows):
            pipeline_of(connection).defer(insert.of(some))
        return
    raw = driver(connection)
    for some in parts(connection, rows):
        text = _insert_values(table, columns, len(some), conflict)
        raw.execute(text, [value for row in some for value in row])


def update_rows(
    connection: Connection,
    table: Table,
    matched: tuple[str, ...],
    assigned: tuple[str, ...],
    rows: Sequence[Row],
    condition: str,
    parameters: Sequence[str] = (),
) -> int:
    """Update, with one statement, the rows that match; return how many did.

    A row holds the values to match and then those to assign; ``condition`` with its parameters,
    texts all, is what all of them have to fulfil besides.

    Raises:
        ValueError: the table has no such column.
    """
    if is_postgres(connection):
        command = update_arrays(table, matched, assigned, condition).of(rows, parameters)
        return pipeline_of(connection).ask(command).command_tuples or 0
    text = update_text(table, matched, assigned, len(rows), condition)
    values = [value for row in rows for value in row]
    return driver(connection).execute(text, [*values, *parameters]).rowcount


def delete_rows(connection: Connection, table: Table, column: str, values: Sequence[Any]) -> None:
    """Delete the rows that have one of the values in a column; sent as by ``insert_rows``."""
    if is_postgres(connection):
        delete = _delete_array(table, column)
        for some in parts(connection, values):
            pipeline_of(connection).defer(delete.of([(value,) for value in some]))
        return
    raw = driver(connection)
    for some in parts(connection, values):
        raw.execute(_delete_values(table, column, len(some)), some)


def matching(
    connection: Connection, table: Table, wanted: str, column: str, values: Sequence[Any]
) -> list[Any]:
    """Return what stands in the column ``wanted`` of the rows that have one of the values in
    another."""
    raw = driver(connection)
    arrays = is_postgres(connection)
    found: list[Any] = []
    for some in parts(connection, values):
        if arrays:
            rows = raw.execute(_select_array(table, wanted, column), [list(some)])
        else:
            rows = raw.execute(_select_values(table, wanted, column, len(some)), some)
        found += [value for (value,) in rows.fetchall()]
    return found


@lru_cache(256)
def _insert_values(table: Table, columns: tuple[str, ...], rows: int, conflict: str) -> str:
    names = _names(table, columns)
    return f"INSERT INTO {table.name} ({names}) VALUES {_places(rows, len(columns))} {conflict}"  # noqa: S608  # names of columns alone


@lru_cache(256)
def _insert_arrays(table: Table, columns: tuple[str, ...], conflict: str) -> Statement:
    names = _names(table, columns)
    text = f"INSERT INTO {table.name} ({names}) SELECT * FROM {_arrays(table, columns)} {conflict}"  # noqa: S608  # names of columns alone
    return _statement(table, columns, text)


@lru_cache(1024)
def update_text(
    table: Table, matched: tuple[str, ...], assigned: tuple[str, ...], rows: int, condition: str
) -> str:
    """Return the text of ``update_rows`` on SQLite."""
    _names(table, matched + assigned)
    values = f"(VALUES {_places(rows, len(matched) + len(assigned))}) AS v"
    return _update(table, matched, assigned, values, condition)


@lru_cache(1024)
def update_arrays(
    table: Table, matched: tuple[str, ...], assigned: tuple[str, ...], condition: str
) -> Statement:
    """Return the statement of ``update_rows`` on PostgreSQL."""
    columns = matched + assigned
    _names(table, columns)
    numbered = ", ".join(f"column{number}" for number in range(1, len(columns) + 1))
    values = f"{_arrays(table, columns)} AS v({numbered})"
    return _statement(table, columns, _update(table, matched, assigned, values, condition))


def _update(
    table: Table, matched: tuple[str, ...], assigned: tuple[str, ...], values: str, condition: str
) -> str:
    first = len(matched) + 1
    assignments = ", ".join(
        f"{name} = v.column{number}" for number, name in enumerate(assigned, start=first)
    )
    matches = " AND ".join(
        f"{table.name}.{name} = v.column{number}" for number, name in enumerate(matched, start=1)
    )
    return f"UPDATE {table.name} SET {assignments} FROM {values} WHERE {matches} AND {condition}"  # noqa: S608  # names of columns alone


@lru_cache(256)
def _delete_values(table: Table, column: str, values: int) -> str:
    return f"DELETE FROM {table.name} WHERE {_names(table, (column,))} IN {_places(1, values)}"  # noqa: S608  # names of columns alone


@lru_cache(64)
def _delete_array(table: Table, column: str) -> Statement:
    name = _names(table, (column,))
    text = f"DELETE FROM {table.name} WHERE {name} = ANY({_array(table, column)})"  # noqa: S608  # names of columns alone
    return _statement(table, (column,), text)


@lru_cache(256)
def _select_values(table: Table, wanted: str, column: str, values: int) -> str:
    _names(table, (wanted, column))
    return f"SELECT {wanted} FROM {table.name} WHERE {column} IN {_places(1, values)}"  # noqa: S608  # names of columns alone


@lru_cache(64)
def _select_array(table: Table, wanted: str, column: str) -> str:
    _names(table, (wanted, column))
    return f"SELECT {wanted} FROM {table.name} WHERE {column} = ANY({_array(table, column)})"  # noqa: S608  # names of columns alone


def _names(table: Table, columns: tuple[str, ...]) -> str:
    unknown = set(columns) - set(table.c.keys())
    if unknown:
        raise ValueError(f"The table {table.name} has no column {sorted(unknown)}.")
    return ", ".join(columns)


def _places(rows: int, columns: int) -> str:
    return ", ".join(["(" + ", ".join(["?"] * columns) + ")"] * rows)


def _arrays(table: Table, columns: tuple[str, ...]) -> str:
    return f"unnest({', '.join(_array(table, name) for name in columns)})"


def _array(table: Table, column: str) -> str:
    return f"?::{_kind(table, column).name}[]"


def _kind(table: Table, column: str) -> Kind:
    return KINDS[type(table.c[column].type).__name__]


def _statement(table: Table, columns: tuple[str, ...], text: str) -> Statement:
    kinds = tuple(_kind(table, column) for column in columns)
    places = count(1)
    numbered = re.sub(r"\?", lambda _: f"${next(places)}", text)
    texts = text.count("?") - len(columns)
    types = tuple(kind.array for kind in kinds) + (TEXT,) * texts
    return Statement(numbered.encode(), kinds, types)
