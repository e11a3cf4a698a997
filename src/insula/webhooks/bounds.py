"""How much is kept for one webhook: what it is still to be told, and the log of what it was told.

An address that takes nothing, or too slowly, is switched off before its backlog grows without end.
"""

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, and_, delete, func, insert, select

from insula.kit import json
from insula.kit.clock import iso
from insula.kit.ids import new_id
from insula.storage.tables import deliveries as rows
from insula.storage.tables import webhooks
from insula.webhooks import deliveries, repository

PENDING_MOST: Final = 10_000
"""Deliveries that may be pending for one webhook."""
LOGGED_MOST: Final = 100_000
"""Deliveries that are kept of one webhook, those that are pending aside."""
DISABLED_EVENT: Final = "webhook.disabled"
"""Stands in the log only: what could tell nobody."""
_REASON_LENGTH = 500


class Overfull(NamedTuple):
    """A webhook for which too much is pending."""

    id: str
    app_id: str
    pending: int


def overfull(connection: Connection) -> list[Overfull]:
    """Return the webhooks for which too much is pending."""
    pending = func.count().label("pending")
    # By itself first: joined, SQLite would look through whole logs.
    many = (
        select(rows.c.webhook_id, pending)
        .where(rows.c.next_at.is_not(None))
        .group_by(rows.c.webhook_id)
        .having(pending > PENDING_MOST)
    )
    counted = {row.webhook_id: row.pending for row in connection.execute(many).all()}
    if not counted:
        return []
    mine = and_(webhooks.c.id.in_(counted), webhooks.c.enabled.is_(True))
    found = connection.execute(select(webhooks.c.id, webhooks.c.app_id).where(mine))
    return [Overfull(row.id, row.app_id, counted[row.id]) for row in found]


def switch_off(connection: Connection, app_id: str, webhook_id: str, reason: str, now: int) -> bool:
    """In a unit: tell an address nothing any more, and say why in its log; False: it was off."""
    webhook = repository.find(connection, app_id, webhook_id)
    if webhook is None or not webhook.enabled:
        return False
    reason = reason[:_REASON_LENGTH]
    values = {"enabled": False, "disabled_reason": reason, "updated_at": now}
    repository.change(connection, webhook_id, values)
    deliveries.give_up(connection, webhook_id, now)
    connection.execute(insert(rows).values(**_entry(webhook_id, reason, now)))
    return True


def switch_off_overfull(connection: Connection, now: int) -> list[str]:
    """In a unit: switch those off for which too much is pending; return which."""
    return [
        webhook.id
        for webhook in overfull(connection)
        if switch_off(
            connection,
            webhook.app_id,
            webhook.id,
            f"{webhook.pending:,} deliveries were pending, more than {PENDING_MOST:,}: it answers "
            "too slowly, or not at all",
            now,
        )
    ]


def trim(connection: Connection, webhook_id: str, limit: int) -> int:
    """In a unit: remove the oldest of a log that is too long; return how many went."""
    mine = and_(rows.c.webhook_id == webhook_id, rows.c.next_at.is_(None))
    first = connection.scalar(
        select(rows.c.id).where(mine).order_by(rows.c.id.desc()).offset(LOGGED_MOST).limit(1)
    )
    if first is None:
        return 0
    old = select(rows.c.id).where(mine, rows.c.id <= first).order_by(rows.c.id).limit(limit)
    return connection.execute(delete(rows).where(mine, rows.c.id.in_(old))).rowcount


def all_ids(connection: Connection) -> list[str]:
    """Return the ids of all webhooks."""
    return list(connection.scalars(select(webhooks.c.id).order_by(webhooks.c.id)))


def _entry(webhook_id: str, reason: str, now: int) -> dict[str, Any]:
    entry_id = new_id("msg")
    data = {"webhook_id": webhook_id, "reason": reason}
    body = {"event": DISABLED_EVENT, "data": data, "id": entry_id, "created_at": iso(now)}
    return {
        "webhook_id": webhook_id,
        "id": entry_id,
        "event": DISABLED_EVENT,
        "body": json.encode(body),
        "status": deliveries.FAILED,
        "attempts": 0,
        "log": json.encode([{"at": iso(now), "ms": 0, "error": reason}]),
        "next_at": None,
        "thing_id": webhook_id,
        "created_at": now,
        "updated_at": now,
    }
