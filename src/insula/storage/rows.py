"""Statements that write many rows at once: on SQLite one place for each value, on PostgreSQL one
array for each column, so that one prepared statement serves every number of rows.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Table

from insula.storage.dialect import driver, is_postgres

T = TypeVar("T")
Row = Sequence[Any]

_AT_ONCE = {"sqlite": 64, "postgresql": 512}
_KINDS = {
    "BigInteger": "bigint",
    "LargeBinary": "bytea",
    "Boolean": "boolean",
    "Float": "double precision",
    "Integer": "integer",
    "Text": "text",
}


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
    """Insert rows; ``conflict`` is an ``ON CONFLICT`` clause."""
    raw = driver(connection)
    arrays = is_postgres(connection)
    for some in parts(connection, rows):
        if arrays:
            raw.execute(_insert_arrays(table, columns, conflict), list(zip_columns(some)))
        else:
            text = _insert_values(table, columns, len(some), conflict)
            raw.execute(text, [value for row in some for value in row])


def update_rows(
    connection: Connection,
    table: Table,
    matched: tuple[str, ...],
    assigned: tuple[str, ...],
    rows: Sequence[Row],
    condition: str,
    parameters: Sequence[Any],
) -> int:
    """Update, with one statement, the rows that match; return how many did.

    A row holds the values to match and then those to assign; ``condition`` with its parameters
    is what all of them have to fulfil besides.

    Raises:
        ValueError: the table has no such column.
    """
    raw = driver(connection)
    if is_postgres(connection):
        text = update_arrays(table, matched, assigned, condition)
        return raw.execute(text, [*zip_columns(rows), *parameters]).rowcount
    text = update_text(table, matched, assigned, len(rows), condition)
    values = [value for row in rows for value in row]
    return raw.execute(text, [*values, *parameters]).rowcount


def delete_rows(connection: Connection, table: Table, column: str, values: Sequence[Any]) -> None:
    """Delete the rows that have one of the values in a column."""
    raw = driver(connection)
    arrays = is_postgres(connection)
    for some in parts(connection, values):
        if arrays:
            raw.execute(_delete_array(table, column), [list(some)])
        else:
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


def zip_columns(rows: Sequence[Row]) -> Iterator[list[Any]]:
    """Turn rows into columns."""
    return map(list, zip(*rows, strict=True))


@lru_cache(256)
def _insert_values(table: Table, columns: tuple[str, ...], rows: int, conflict: str) -> str:
    names = _names(table, columns)
    return f"INSERT INTO {table.name} ({names}) VALUES {_places(rows, len(columns))} {conflict}"  # noqa: S608  # names of columns alone


@lru_cache(256)
def _insert_arrays(table: Table, columns: tuple[str, ...], conflict: str) -> str:
    names = _names(table, columns)
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM {_arrays(table, columns)} {conflict}"  # noqa: S608  # names of columns alone


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
) -> str:
    """Return the text of ``update_rows`` on PostgreSQL."""
    columns = matched + assigned
    _names(table, columns)
    numbered = ", ".join(f"column{number}" for number in range(1, len(columns) + 1))
    values = f"{_arrays(table, columns)} AS v({numbered})"
    return _update(table, matched, assigned, values, condition)


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
def _delete_array(table: Table, column: str) -> str:
    name = _names(table, (column,))
    return f"DELETE FROM {table.name} WHERE {name} = ANY({_array(table, column)})"  # noqa: S608  # names of columns alone


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
    return f"?::{_KINDS[type(table.c[column].type).__name__]}[]"
