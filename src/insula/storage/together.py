"""Fixed queries, several of them in one round trip.

A query of SQLAlchemy takes longer to be put together and read than the database takes to answer it,
and each waits for its own answer. A ``Question`` is put together once; on PostgreSQL several go out
at once, past the driver's cursors. For lists that are asked for often.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from psycopg.adapt import Transformer
from psycopg.pq.abc import PGresult
from sqlalchemy import ARRAY, ColumnElement, Connection, Select, any_, bindparam
from sqlalchemy.dialects import postgresql

from insula.storage.dialect import is_postgres
from insula.storage.postgres_arrays import KINDS, Kind, encode_array, encode_value
from insula.storage.postgres_pipeline import Command, pipeline_of

Among = Callable[[ColumnElement[Any], str], ColumnElement[bool]]
"""Matches a column with any of the values of a parameter."""


class Question:
    """A query whose text never changes. ``build`` is given what matches a column with a list;
    what else it needs are ``bindparam`` of the columns' types."""

    def __init__(self, build: Callable[[Among], Select[Any]]) -> None:
        self.query = build(lambda column, name: column.in_(bindparam(name, expanding=True)))
        self._build = build

    def of(self, **values: Any) -> "Asked":
        """Ask it with these parameters."""
        return Asked(self, values)

    @cached_property
    def encoded(self) -> "_Encoded":
        """The query as PostgreSQL is given it."""
        query = self._build(lambda column, name: column == any_(_array(column, name)))
        dialect = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
        compiled = query.compile(dialect=dialect)
        places = [compiled.binds[name] for name in compiled.positiontup or ()]
        kinds = tuple((place.key, place.value, *_kind(place.type)) for place in places)
        row = namedtuple("row", query.selected_columns.keys(), rename=True)  # type: ignore[misc]  # its names are the query's
        return _Encoded(str(compiled).encode(), kinds, row)


class Asked(NamedTuple):
    """A question with its parameters."""

    question: Question
    values: Mapping[str, Any]


def ask_together(connection: Connection, *asked: Asked) -> list[Sequence[Any]]:
    """Return the rows of each, which know their columns' names."""
    if not is_postgres(connection):
        return [connection.execute(one.question.query, one.values).all() for one in asked]
    encoded = [one.question.encoded for one in asked]
    commands = [text.of(one.values) for text, one in zip(encoded, asked, strict=True)]
    results = pipeline_of(connection).ask_all(commands)
    return [text.rows(result) for text, result in zip(encoded, results, strict=True)]


class _Encoded(NamedTuple):
    text: bytes
    places: tuple[tuple[str, Any, Kind, bool], ...]
    """Each parameter's name and usual value, its kind, and whether it is a list."""
    row: Any

    def of(self, values: Mapping[str, Any]) -> Command:
        encoded = []
        for name, usual, kind, many in self.places:
            value = values.get(name, usual)
            encoded.append(encode_array(kind, value) if many else encode_value(kind, value))
        types = tuple(kind.array if many else kind.element for *_, kind, many in self.places)
        return Command(self.text, encoded, types)

    def rows(self, result: PGresult) -> Sequence[Any]:
        transformer = Transformer()
        transformer.set_pgresult(result)
        found: Sequence[Any] = transformer.load_rows(0, result.ntuples, self.row._make)
        return found


def _array(column: ColumnElement[Any], name: str) -> Any:
    return bindparam(name, type_=ARRAY(column.type))


def _kind(type_: Any) -> tuple[Kind, bool]:
    many = isinstance(type_, ARRAY)
    return KINDS[type(type_.item_type if many else type_).__name__], many
