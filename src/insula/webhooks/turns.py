"""Whose deliveries are made next: each app has a share of the places, and so has each address, so
that slow ones with much to be told hold up themselves alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select, text

from insula.storage.tables import deliveries, webhooks

AT_ONCE = 64
OF_ONE_APP = 16
OF_ONE_WEBHOOK = 4
LOOKED_AT = 500
"""Webhooks that one look comes to; the next one goes on behind them."""

# The webhooks for which something is pending, by jumping along the index: one step each, however
# much it is.
_PENDING = text(
    """
    WITH RECURSIVE turn(webhook_id) AS (
        SELECT min(webhook_id) FROM deliveries WHERE next_at IS NOT NULL AND webhook_id > :after
        UNION ALL
        SELECT (SELECT min(webhook_id) FROM deliveries
                WHERE next_at IS NOT NULL AND webhook_id > turn.webhook_id)
        FROM turn WHERE turn.webhook_id IS NOT NULL
    )
    SELECT found.webhook_id, webhooks.app_id, (
        SELECT min(next_at) FROM deliveries
        WHERE next_at IS NOT NULL AND deliveries.webhook_id = found.webhook_id
    ) AS first
    FROM (SELECT webhook_id FROM turn WHERE webhook_id IS NOT NULL LIMIT :most) AS found
    JOIN webhooks ON webhooks.id = found.webhook_id
    ORDER BY found.webhook_id
    """
)
_TOLD = (webhooks.c.app_id, webhooks.c.url, webhooks.c.sealed, webhooks.c.failing_since)


@dataclass(slots=True)
class Busy:
    """How many deliveries are being made here, of each app and to each address."""

    apps: Counter[str] = field(default_factory=Counter)
    webhooks: Counter[str] = field(default_factory=Counter)

    @property
    def room(self) -> int:
        """How many more there may be."""
        return AT_ONCE - self.webhooks.total()

    def room_for(self, app_id: str, webhook_id: str) -> int:
        """Return how many more there may be to one address."""
        own = min(OF_ONE_APP - self.apps[app_id], OF_ONE_WEBHOOK - self.webhooks[webhook_id])
        return min(self.room, own)

    def change(self, app_id: str, webhook_id: str, by: int) -> None:
        """Count one that begins, or has ended."""
        for counted, key in ((self.apps, app_id), (self.webhooks, webhook_id)):
            counted[key] += by
            if not counted[key]:
                del counted[key]

    def copy(self) -> "Busy":
        """Return the same, to count further in."""
        return Busy(Counter(self.apps), Counter(self.webhooks))


class Due(NamedTuple):
    """Deliveries to be made now, and the webhook after which the next look begins."""

    rows: list[Row[Any]]
    after: str


def due(connection: Connection, now: int, busy: Busy, after: str = "") -> Due:
    """Return deliveries that are due and have room, of apps with few first, with where they go."""
    pending = connection.execute(_PENDING, {"after": after, "most": LOOKED_AT}).all()
    further = pending[-1].webhook_id if len(pending) == LOOKED_AT else ""
    waiting = [each for each in pending if each.first <= now]
    planned, rows = busy.copy(), list[Row[Any]]()
    for each in sorted(waiting, key=lambda one: (busy.apps[one.app_id], one.first)):
        room = planned.room_for(each.app_id, each.webhook_id)
        for row in _first(connection, each.webhook_id, now, room):
            planned.change(row.app_id, row.webhook_id, 1)
            rows.append(row)
    return Due(rows, further)


def _first(connection: Connection, webhook_id: str, now: int, limit: int) -> Sequence[Row[Any]]:
    if limit <= 0:
        return []
    query = (
        select(deliveries, *_TOLD)
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.next_at <= now)
        .order_by(deliveries.c.next_at, deliveries.c.id)
        .limit(limit)
    )
    return connection.execute(query).all()
