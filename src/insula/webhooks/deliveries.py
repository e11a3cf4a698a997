"""Rows of deliveries: what each webhook is to be told, was told, or could not be told.

A claim is the row's next attempt moved into the future: whoever moved it delivers, and if it dies
the row is due again. When that is goes by the database's clock alone: by those of the nodes, one
that is ahead would take away what another has claimed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy import Text as AnyText

from insula.storage import dialect
from insula.storage.tables import deliveries, runs, webhooks

PENDING, DELIVERED, FAILED = "PENDING", "DELIVERED", "FAILED"
SHOWN_MOST = 10_000
"""Up to how many deliveries are counted."""


def enqueue(
    connection: Connection,
    *,
    app_id: str,
    event: str,
    event_id: str,
    body: bytes,
    thing_id: str,
    now: int,
    webhook_id: str | None = None,
) -> None:
    """Tell every webhook of an app that wants an event; or one, whatever it wants.

    One statement: whoever subscribes at the same time is told or is not.
    """
    wanted = and_(
        webhooks.c.app_id == app_id,
        webhooks.c.id == webhook_id
        if webhook_id is not None
        else and_(webhooks.c.enabled.is_(True), webhooks.c.events.like(f"%,{event},%")),
    )
    columns = {
        "webhook_id": webhooks.c.id,
        "id": literal(event_id, AnyText()),
        "event": literal(event, AnyText()),
        "body": literal(body, LargeBinary()),
        "status": literal(PENDING, AnyText()),
        "attempts": literal(0, BigInteger()),
        "log": literal(b"[]", LargeBinary()),
        "next_at": at_once(connection, now),
        "thing_id": literal(thing_id, AnyText()),
        "created_at": literal(now, BigInteger()),
        "updated_at": literal(now, BigInteger()),
    }
    chosen = select(*(value.label(name) for name, value in columns.items())).where(wanted)
    connection.execute(insert(deliveries).from_select(list(columns), chosen))


def clock(connection: Connection) -> int:
    """Return the database's time, which all nodes have in common."""
    return int(connection.execute(select(dialect.now_ms(connection))).scalar_one())


def at_once(connection: Connection, now: int) -> ColumnElement[int]:
    """Return when something is due that became true ``now``, by the clock of this node: that may be
    ahead."""
    common = dialect.now_ms(connection)
    own = literal(now, BigInteger())
    return case((common < own, common), else_=own)


def find(connection: Connection, webhook_id: str, delivery_id: str) -> Row[Any] | None:
    """Return a delivery."""
    return connection.execute(select(deliveries).where(_one(webhook_id, delivery_id))).first()


def list_page(
    connection: Connection,
    webhook_id: str,
    status: str | None,
    take: int,
    offset: int,
    before: str | None,
) -> tuple[Sequence[Row[Any]], int]:
    """Return up to ``take`` deliveries of a webhook, newest first, and how many there are."""
    wanted = [deliveries.c.webhook_id == webhook_id]
    if status is not None:
        wanted.append(deliveries.c.status == status)
    some = select(deliveries.c.id).where(*wanted).limit(SHOWN_MOST + 1).subquery()
    count = int(connection.scalar(select(func.count()).select_from(some)) or 0)
    query = select(deliveries).where(*wanted).order_by(deliveries.c.id.desc())
    if before is not None:
        query = query.where(deliveries.c.id < before)
    return connection.execute(query.limit(take).offset(offset)).all(), count


def claim(connection: Connection, row: Row[Any], until: int) -> bool:
    """Take a delivery that was found due; say whether it is ours."""
    taken = update(deliveries).where(
        _one(row.webhook_id, row.id),
        deliveries.c.next_at == row.next_at,
        deliveries.c.attempts == row.attempts,
    )
    values = {"next_at": until, "attempts": row.attempts + 1}
    return connection.execute(taken.values(**values)).rowcount == 1


def settle(connection: Connection, row: Row[Any], claimed: int, values: Mapping[str, Any]) -> None:
    """Store what became of a claim, unless it had lapsed. A body whose data is erased goes."""
    ours = and_(_one(row.webhook_id, row.id), deliveries.c.next_at == claimed)
    over = values["next_at"] is None
    if over:
        _hold(connection, runs.c.id == row.thing_id)
    connection.execute(update(deliveries).where(ours).values(**values))
    if over:
        _erase(connection, _one(row.webhook_id, row.id))


def _hold(connection: Connection, told: ColumnElement[bool]) -> None:
    """Keep runs from being erased, or wait until they are: another process that erases them just
    now does not see what is written here, nor is it seen."""
    connection.execute(select(runs.c.id).where(told).order_by(runs.c.id).with_for_update(read=True))


def _erase(connection: Connection, what: ColumnElement[bool]) -> None:
    """Remove what deliveries tell of runs whose data is erased."""
    gone = select(runs.c.id).where(
        runs.c.id == deliveries.c.thing_id, runs.c.erased_at.is_not(None)
    )
    connection.execute(update(deliveries).where(what, gone.exists()).values(body=None))


def again(connection: Connection, webhook_id: str, delivery_id: str, now: int) -> int:
    """Let a delivery be due now, from its first attempt on; return whether there was one."""
    wanted = and_(_one(webhook_id, delivery_id), deliveries.c.body.is_not(None))
    due = at_once(connection, now)
    values = {"status": PENDING, "attempts": 0, "next_at": due, "updated_at": now}
    return connection.execute(update(deliveries).where(wanted).values(**values)).rowcount


def give_up(connection: Connection, webhook_id: str, now: int) -> None:
    """Let nothing of a webhook be pending any more."""
    mine = deliveries.c.webhook_id == webhook_id
    wanted = and_(mine, deliveries.c.next_at.is_not(None))
    _hold(connection, runs.c.id.in_(select(deliveries.c.thing_id).where(wanted)))
    _erase(connection, wanted)
    values = {"status": FAILED, "next_at": None, "updated_at": now}
    connection.execute(update(deliveries).where(wanted).values(**values))


def forget(connection: Connection, before: str, limit: int) -> int:
    """Remove deliveries that were made before an id and are not pending; return how many went."""
    old = (
        select(deliveries.c.webhook_id, deliveries.c.id)
        .where(deliveries.c.id < before, deliveries.c.next_at.is_(None))
        .limit(limit)
    )
    found = connection.execute(old).all()
    for row in found:
        connection.execute(delete(deliveries).where(_one(row.webhook_id, row.id)))
    return len(found)


def _one(webhook_id: str, delivery_id: str) -> Any:
    return and_(deliveries.c.webhook_id == webhook_id, deliveries.c.id == delivery_id)
