"""A whole installation's rows in a form that belongs to neither database: what a backup holds, and
what is carried over when an installation moves.

A *frame* is the head, some rows of one table, or the end. Tables come in an order in which what is
referred to stands before what refers to it, rows in the order of their keys, so that both databases
give the same frames for the same rows.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from psycopg import Connection as PostgresConnection
from psycopg import sql
from sqlalchemy import Column, Connection, MetaData, Table, inspect, literal, select

from insula import __version__
from insula.kit.clock import now_ms
from insula.storage.dialect import is_postgres
from insula.storage.migrate import version
from insula.storage.tables import metadata

FORMAT = 1
LEFT_OUT = frozenset({"commits", "nodes"})
"""Tables whose rows are about processes, which do not move: their runs are recovered instead."""
_FACTS = "facts"
_KEPT_FACT = "schema_version"
_ROWS_A_FRAME = 500
_BYTES_A_FRAME = 1024 * 1024
_WIDE = frozenset({"extractions", "run_data", "run_events", "versions", "workflows"})
_FETCHED, _FETCHED_WIDE = 1_000, 16

Told = Callable[[str, int], None]
"""Hears of a table and how many of its rows are done."""


class Head(msgspec.Struct, tag="head"):
    """What comes: of which schema, made by which program, and when (Unix ms)."""

    format: int
    schema: int
    program: str
    made_at: int
    tables: dict[str, list[str]]
    """The columns of each table by name, as the rows' values stand."""


class Rows(msgspec.Struct, tag="rows"):
    """Some rows of a table."""

    table: str
    rows: list[list[Any]]


class Total(msgspec.Struct, frozen=True):
    """How many rows a table has, and the SHA-256 of them all."""

    rows: int
    digest: bytes

    @classmethod
    def none(cls) -> "Total":
        """Return the total of a table without rows."""
        return cls(0, hashlib.sha256().digest())


class End(msgspec.Struct, tag="end"):
    """Everything was told: what each table has to have now."""

    totals: dict[str, Total]


Frame = Head | Rows | End


class Damaged(Exception):
    """The frames are not what they say they are."""


def frames(connection: Connection, told: Told) -> Iterator[Frame]:
    """Give all rows; the connection stands in one snapshot until the last frame is taken."""
    tables = _tables(connection)
    yield Head(
        FORMAT,
        version(connection),
        __version__,
        now_ms(),
        _described(tables),
    )
    totals = {}
    for table in tables:
        tally = _Tally()
        for rows in _batches(_read(connection, table)):
            tally.add(rows)
            yield Rows(str(table.name), rows)
            told(table.name, tally.rows)
        totals[str(table.name)] = tally.total()
    yield End(totals)


def occupied(connection: Connection) -> str | None:
    """Return the name of a table that has rows which a restore would lose, if there is one."""
    for table in _tables(connection):
        if table.name != _FACTS:
            row = connection.execute(select(literal(1)).select_from(table).limit(1)).first()
            if row is not None:
                return str(table.name)
    return None


def strangers(connection: Connection) -> list[str]:
    """Return the names of tables that are none of ours."""
    return sorted(set(inspect(connection).get_table_names()) - set(metadata.tables))


def drop_all(connection: Connection) -> None:
    """Remove every table of ours, in the caller's transaction."""
    _ours(connection).drop_all(connection)


def load(connection: Connection, coming: Iterator[Frame], told: Told) -> End:
    """Write the frames after the head into an empty database of the same schema, and compare what
    stands there afterwards. The caller has begun a transaction, and commits or undoes it.

    PostgreSQL has no U+0000 in a text; where one stood in a file there is U+FFFD then.

    Raises:
        Damaged: a frame is missing, altered, or not for this schema.
    """
    tables = {str(table.name): table for table in _tables(connection)}
    facts = tables[_FACTS]
    connection.execute(facts.delete().where(facts.c.name != _KEPT_FACT))
    tallies = {name: _Tally() for name in tables}
    fitting = is_postgres(connection)
    fitted = {name: _Tally() for name in tables} if fitting else tallies
    for frame in coming:
        if isinstance(frame, End):
            _compare(frame.totals, tallies, "read")
            written = {name: tally.total() for name, tally in fitted.items()}
            _compare(written, _stored(connection, tables.values(), told), "stored")
            return frame
        if not isinstance(frame, Rows) or frame.table not in tables:
            raise Damaged("It holds rows of a table that its schema does not have.")
        table = tables[frame.table]
        if any(len(row) != len(table.columns) for row in frame.rows):
            raise Damaged(f"It holds rows of {table.name} with missing columns.")
        tallies[frame.table].add(frame.rows)
        rows = frame.rows
        if fitting:
            rows = [[_fitted(value) for value in row] for row in rows]
            fitted[frame.table].add(rows)
        _write(connection, table, rows)
        told(table.name, tallies[frame.table].rows)
    raise Damaged("It ends too early.")


def examine(coming: Iterator[Frame], told: Told) -> End:
    """Read the frames after the head to their end, and write nothing.

    Raises:
        Damaged: a frame is missing or altered.
    """
    tallies: dict[str, _Tally] = {}
    for frame in coming:
        if isinstance(frame, End):
            _compare(frame.totals, tallies, "read")
            return frame
        if isinstance(frame, Rows):
            tally = tallies.setdefault(frame.table, _Tally())
            tally.add(frame.rows)
            told(f"{frame.table}, read", tally.rows)
    raise Damaged("It ends too early.")


def check_head(connection: Connection, head: Frame) -> Head:
    """Return the head if the database has exactly its tables and columns.

    Raises:
        Damaged: it has not.
    """
    if not isinstance(head, Head):
        raise Damaged("It does not begin with its head.")
    theirs = head.tables
    ours = _described(_tables(connection))
    if ours != theirs:
        differ = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        raise Damaged(f"Its tables are not those of schema {head.schema}: {', '.join(differ)}.")
    return head


class _Tally:
    """Counts and digests the rows of a table, whatever batches they come in."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.sha256()
        self._encoder = msgspec.msgpack.Encoder()

    def add(self, rows: list[list[Any]]) -> None:
        self.rows += len(rows)
        for row in rows:
            self._hash.update(self._encoder.encode(row))

    def total(self) -> Total:
        return Total(self.rows, self._hash.digest())


def _tables(connection: Connection) -> list[Table]:
    """Return our tables that the database has, those that are referred to first."""
    return [table for table in _ours(connection).sorted_tables if table.name not in LEFT_OUT]


def _ours(connection: Connection) -> MetaData:
    """Look at what there is: the schema may be an older one, and other tables are none of ours."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in metadata.tables)
    return found


def _columns(table: Table) -> list[Column[Any]]:
    """Return the columns by name: their own order depends on how migrations made them."""
    return sorted(table.columns, key=lambda column: column.name)


def _described(tables: list[Table]) -> dict[str, list[str]]:
    return {str(table.name): [str(column.name) for column in _columns(table)] for table in tables}


def _read(connection: Connection, table: Table) -> Iterator[list[Any]]:
    keys = sorted(table.primary_key.columns, key=lambda column: column.name)
    fetched = _FETCHED_WIDE if table.name in _WIDE else _FETCHED
    query = select(*_columns(table)).order_by(*keys).execution_options(yield_per=fetched)
    with connection.execute(query) as result:
        for row in result:
            yield list(row)


def _batches(rows: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    batch: list[list[Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(batch) >= _ROWS_A_FRAME or size >= _BYTES_A_FRAME:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(connection: Connection, table: Table, rows: list[list[Any]]) -> None:
    if table.name == _FACTS:
        place = [column.name for column in _columns(table)].index("name")
        rows = [row for row in rows if row[place] != _KEPT_FACT]
    if not rows:
        return
    raw = connection.connection.driver_connection
    names = [column.name for column in _columns(table)]
    if isinstance(raw, PostgresConnection):
        copying = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with raw.cursor() as cursor, cursor.copy(copying) as copy:
            for row in rows:
                copy.write_row(row)
    else:
        columns = ", ".join(f'"{name}"' for name in names)
        marks = ", ".join("?" * len(names))
        connection.exec_driver_sql(
            f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks})',  # noqa: S608  # names of our own schema
            [tuple(row) for row in rows],
        )


def _fitted(value: Any) -> Any:
    """Return a value as PostgreSQL can hold it."""
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


def _stored(connection: Connection, tables: Iterable[Table], told: Told) -> dict[str, _Tally]:
    found = {}
    for table in tables:
        tally = _Tally()
        for batch in _batches(_read(connection, table)):
            tally.add(batch)
            told(f"{table.name}, compared", tally.rows)
        found[table.name] = tally
    return found


def _compare(totals: dict[str, Total], found: dict[str, _Tally], how: str) -> None:
    for name, total in totals.items():
        here = found.get(name, _Tally()).total()
        if here != total:
            raise Damaged(
                f"{name}: {here.rows} rows were {how} where {total.rows} stood, or other ones."
            )
