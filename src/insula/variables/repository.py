"""Rows of variables. A value that changes is a row that follows; the one before says until when it
held, for runs that began with it.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)

from insula.adapters.keyring import OVERHEAD
from insula.storage.rows import insert_rows, parts
from insula.storage.tables import variables

_ROWS: Final[tuple[ColumnElement[Any], ...]] = (
    variables.c.key,
    variables.c.since,
    variables.c.value,
    variables.c.sealed,
    variables.c.hosts,
    variables.c.created_at,
)


class Value(NamedTuple):
    """What a variable is from some moment on: a plain value, or a sealed one."""

    key: str
    value: bytes | None
    sealed: bytes | None
    key_id: str | None
    hosts: bytes | None
    created_at: int


def list_today(
    connection: Connection, app_id: str, take: int, offset: int, after: str | None
) -> tuple[Sequence[Row[Any]], int]:
    """Return up to ``take`` variables of an app by their keys, and how many there are."""
    mine = _today(app_id)
    query = select(*_ROWS).where(mine).order_by(variables.c.key).limit(take).offset(offset)
    if after is not None:
        query = query.where(variables.c.key > after)
    held = connection.scalar(select(func.count()).select_from(variables).where(mine))
    return connection.execute(query).all(), held or 0


def at(connection: Connection, app_id: str, when: int | None) -> Sequence[Row[Any]]:
    """Return all variables of an app, those of today or as they were at a time."""
    held = _today(app_id)
    if when is not None:
        held = and_(
            variables.c.app_id == app_id,
            variables.c.since <= when,
            or_(variables.c.until.is_(None), variables.c.until > when),
        )
    return connection.execute(select(*_ROWS).where(held).order_by(variables.c.key)).all()


def find(connection: Connection, app_id: str, key: str) -> Row[Any] | None:
    """Return a variable of today."""
    return connection.execute(
        select(*_ROWS).where(_today(app_id), variables.c.key == key)
    ).one_or_none()


def put(connection: Connection, app_id: str, values: Sequence[Value], now: int) -> None:
    """Give variables the values that they have from now on."""
    since = end(connection, app_id, [one.key for one in values], now)
    columns = ("app_id", "since", *Value._fields)
    insert_rows(connection, variables, columns, [(app_id, since, *one) for one in values])


def end(connection: Connection, app_id: str, keys: Sequence[str], now: int) -> int:
    """Let the values of variables hold until now; return when the next ones may begin."""
    until = now
    for some in parts(connection, keys):
        mine = and_(variables.c.app_id == app_id, variables.c.key.in_(some))
        last = connection.scalar(select(func.max(variables.c.since)).where(mine))
        until = until if last is None else max(until, int(last) + 1)
    for some in parts(connection, keys):
        held = and_(_today(app_id), variables.c.key.in_(some))
        connection.execute(update(variables).where(held).values(until=until))
    return until


def weigh(connection: Connection, app_id: str) -> tuple[int, int, int]:
    """Return how many variables an app has, and the bytes of its plain values and its secrets."""
    row = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(func.length(variables.c.value)), 0),
            func.coalesce(func.sum(func.length(variables.c.sealed)), 0),
            func.count(variables.c.sealed),
        ).where(_today(app_id))
    ).one()
    return int(row[0]), int(row[1]), int(row[2]) - OVERHEAD * int(row[3])


def forget(connection: Connection, before: int) -> int:
    """Remove values that held until before a time; return how many."""
    past = and_(variables.c.until.is_not(None), variables.c.until < before)
    return connection.execute(delete(variables).where(past)).rowcount


def remove_app(connection: Connection, app_id: str) -> None:
    """Remove every variable of an app, past values included."""
    connection.execute(delete(variables).where(variables.c.app_id == app_id))


def _today(app_id: str) -> Any:
    return and_(variables.c.app_id == app_id, variables.c.until.is_(None))
