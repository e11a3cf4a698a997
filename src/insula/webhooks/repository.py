"""Rows of webhooks. Every function takes a connection of the database."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from insula.storage.tables import deliveries, hook_tokens, webhooks


def insert_one(connection: Connection, values: Mapping[str, Any]) -> None:
    """Add a webhook."""
    connection.execute(insert(webhooks).values(**values))


def find(connection: Connection, app_id: str, webhook_id: str) -> Row[Any] | None:
    """Return an app's webhook."""
    return connection.execute(select(webhooks).where(_mine(app_id, webhook_id))).first()


def list_page(
    connection: Connection, app_id: str, take: int, offset: int, before: str | None
) -> tuple[Sequence[Row[Any]], int]:
    """Return up to ``take`` webhooks of an app, newest first, and how many there are."""
    query = select(webhooks).where(webhooks.c.app_id == app_id).order_by(webhooks.c.id.desc())
    if before is not None:
        query = query.where(webhooks.c.id < before)
    return connection.execute(query.limit(take).offset(offset)).all(), count(connection, app_id)


def count(connection: Connection, app_id: str) -> int:
    """Return how many webhooks an app has."""
    query = select(func.count()).select_from(webhooks).where(webhooks.c.app_id == app_id)
    return int(connection.scalar(query) or 0)


def change(connection: Connection, webhook_id: str, values: Mapping[str, Any]) -> None:
    """Change a webhook."""
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**values))


def mark_failing(connection: Connection, webhook_id: str, since: int | None) -> None:
    """Note since when nothing arrives; ``None``: something has."""
    known = webhooks.c.failing_since
    unlike = known.is_not(None) if since is None else known.is_(None)
    wanted = and_(webhooks.c.id == webhook_id, unlike)
    connection.execute(update(webhooks).where(wanted).values(failing_since=since))


def remove(connection: Connection, app_id: str, webhook_id: str) -> int:
    """Remove a webhook with its deliveries; return how many went."""
    gone = connection.execute(delete(webhooks).where(_mine(app_id, webhook_id))).rowcount
    if gone:
        connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
    return gone


def remove_app(connection: Connection, app_id: str) -> None:
    """Remove every webhook of an app, and the addresses that start its runs."""
    mine = select(webhooks.c.id).where(webhooks.c.app_id == app_id)
    connection.execute(delete(deliveries).where(deliveries.c.webhook_id.in_(mine)))
    connection.execute(delete(webhooks).where(webhooks.c.app_id == app_id))
    connection.execute(delete(hook_tokens).where(hook_tokens.c.app_id == app_id))


def known(connection: Connection, webhook_ids: Collection[str]) -> frozenset[str]:
    """Return those of some webhooks that there are."""
    query = select(webhooks.c.id).where(webhooks.c.id.in_(webhook_ids))
    return frozenset(connection.scalars(query))


def apps_told_of_runs(connection: Connection) -> frozenset[str]:
    """Return the apps that have a webhook for the ends of runs."""
    wanted = and_(webhooks.c.enabled.is_(True), webhooks.c.events.like("%,run.%"))
    return frozenset(connection.scalars(select(webhooks.c.app_id).where(wanted).distinct()))


def _mine(app_id: str, webhook_id: str) -> Any:
    return and_(webhooks.c.id == webhook_id, webhooks.c.app_id == app_id)
