"""Rows of connections. Every function takes a connection of the database."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from insula.storage.tables import apps, connections


def insert_one(connection: Connection, values: Mapping[str, Any]) -> None:
    """Add a connection."""
    connection.execute(insert(connections).values(**values))


def find(connection: Connection, app_id: str, connection_id: str) -> Row[Any] | None:
    """Return an app's connection."""
    return connection.execute(select(connections).where(_mine(app_id, connection_id))).first()


def list_page(
    connection: Connection, app_id: str, take: int, offset: int, before: str | None
) -> tuple[Sequence[Row[Any]], int]:
    """Return up to ``take`` connections of an app, newest first, and how many there are."""
    mine = connections.c.app_id == app_id
    query = select(connections).where(mine).order_by(connections.c.id.desc())
    if before is not None:
        query = query.where(connections.c.id < before)
    return connection.execute(query.limit(take).offset(offset)).all(), count(connection, app_id)


def count(connection: Connection, app_id: str) -> int:
    """Return how many connections an app has."""
    query = select(func.count()).select_from(connections).where(connections.c.app_id == app_id)
    return int(connection.scalar(query) or 0)


def oldest_first(connection: Connection, app_id: str) -> Sequence[Row[Any]]:
    """Return all connections of an app."""
    mine = connections.c.app_id == app_id
    return connection.execute(select(connections).where(mine).order_by(connections.c.id)).all()


def change(
    connection: Connection, app_id: str, connection_id: str, values: Mapping[str, Any]
) -> None:
    """Change a connection."""
    mine = _mine(app_id, connection_id)
    connection.execute(update(connections).where(mine).values(**values))


def remove(connection: Connection, app_id: str, connection_id: str) -> int:
    """Remove a connection; return how many went."""
    return connection.execute(delete(connections).where(_mine(app_id, connection_id))).rowcount


def remove_app(connection: Connection, app_id: str) -> None:
    """Remove every connection of an app."""
    connection.execute(delete(connections).where(connections.c.app_id == app_id))


def app_settings(connection: Connection, app_id: str) -> bytes:
    """Return an app's settings as JSON."""
    found = connection.scalar(select(apps.c.settings).where(apps.c.id == app_id))
    return b"{}" if found is None else bytes(found)


def _mine(app_id: str, connection_id: str) -> Any:
    return and_(connections.c.id == connection_id, connections.c.app_id == app_id)
