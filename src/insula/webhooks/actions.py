"""What is done with webhooks: making and changing them, secrets sealed on the way in."""

from typing import Any, Final

from sqlalchemy import Connection, Row

from insula.adapters.keyring import KeyRing, Unreadable, sealed_by
from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim
from insula.webhooks import deliveries, repository
from insula.webhooks.deliver import KIND
from insula.webhooks.schemas import (
    TEST_EVENT,
    CreateWebhookSchema,
    UpdateWebhookSchema,
    covered,
    stored_events,
)
from insula.webhooks.signature import Signers, new_secret
from insula.webhooks.telling import Message

MOST: Final = 50
"""Webhooks of one app."""
OFF: Final = "It was switched off"


def create(
    connection: Connection,
    ring: KeyRing,
    principal: Principal,
    wanted: CreateWebhookSchema,
    idempotency: Idempotency | None,
) -> Row[Any]:
    """In a unit: make a webhook.

    Raises:
        BadInput: it would be told of nothing.
        Conflict: the app has too many.
    """
    app_id, webhook_id, now = principal.app_id, new_id("hook"), now_ms()
    if idempotency and (earlier := claim(connection, principal, idempotency, webhook_id)):
        return found(connection, app_id, earlier)
    if repository.count(connection, app_id) >= MOST:
        raise Conflict(f"This app has {MOST} webhooks. Remove those that are not used.")
    values = {
        "id": webhook_id,
        "app_id": app_id,
        "url": wanted.url,
        "events": _events(wanted.events, wanted.run_events),
        "enabled": True,
        "created_at": now,
        "updated_at": now,
        **_sealed(ring, app_id, webhook_id, Signers(new_secret())),
    }
    repository.insert_one(connection, values)
    return found(connection, app_id, webhook_id)


def change(
    connection: Connection, app_id: str, webhook_id: str, wanted: UpdateWebhookSchema
) -> Row[Any]:
    """In a unit: change a webhook. Switched off, it lets go of what it was to be told.

    Raises:
        NotFound: the app has none with this id.
        BadInput: it would be told of nothing.
    """
    row, now = found(connection, app_id, webhook_id), now_ms()
    told = [event for event in row.events.split(",") if event]
    events = wanted.events
    if events is None:
        events = [event for event in told if event.startswith("record.")]
    run_events = wanted.run_events
    if run_events is None:
        run_events = [event for event in told if event.startswith("run.")]
    values: dict[str, Any] = {"events": _events(events, run_events), "updated_at": now}
    if wanted.url is not None:
        # What a key that only reads was shown, and is sent back, keeps the password.
        url = row.url if wanted.url == covered(row.url) else wanted.url
        values |= {"url": url, "failing_since": None}
    if wanted.enabled is not None:
        reason = None if wanted.enabled else (row.disabled_reason or OFF)
        values |= {"enabled": wanted.enabled, "disabled_reason": reason, "failing_since": None}
    repository.change(connection, webhook_id, values)
    if wanted.enabled is False:
        deliveries.give_up(connection, webhook_id, now)
    return found(connection, app_id, webhook_id)


def rotate(connection: Connection, ring: KeyRing, app_id: str, webhook_id: str) -> Row[Any]:
    """In a unit: give a webhook another secret; for a day the one before signs as well.

    Raises:
        NotFound: the app has none with this id.
    """
    row, now = found(connection, app_id, webhook_id), now_ms()
    try:
        known = Signers.parse(ring.open(bytes(row.sealed), KIND, app_id, webhook_id))
        signers = known.rotated(now)
    except Unreadable:  # it signs no more, whoever has it
        signers = Signers(new_secret())
    values = _sealed(ring, app_id, webhook_id, signers) | {"updated_at": now}
    repository.change(connection, webhook_id, values)
    return found(connection, app_id, webhook_id)


def remove(connection: Connection, app_id: str, webhook_id: str) -> None:
    """In a unit: remove a webhook, its deliveries with it.

    Raises:
        NotFound: the app has none with this id.
    """
    if not repository.remove(connection, app_id, webhook_id):
        raise unknown()


def ping(
    connection: Connection, principal: Principal, webhook_id: str, idempotency: Idempotency | None
) -> str:
    """In a unit: let a webhook be told of a test; return the delivery's id.

    Raises:
        NotFound: the app has none with this id.
    """
    app_id = principal.app_id
    found(connection, app_id, webhook_id)
    message = Message.of(TEST_EVENT, {"webhook_id": webhook_id}, now_ms())
    if idempotency and (earlier := claim(connection, principal, idempotency, message.id)):
        return earlier
    message.store(connection, app_id=app_id, thing_id=webhook_id, webhook_id=webhook_id)
    return message.id


def redeliver(
    connection: Connection,
    principal: Principal,
    webhook_id: str,
    delivery_id: str,
    idempotency: Idempotency | None,
) -> Row[Any]:
    """In a unit: let a delivery be made again; once for the same request.

    Raises:
        NotFound: there is none with this id.
        Conflict: what it tells of is erased.
    """
    app_id = principal.app_id
    there = delivery(connection, app_id, webhook_id, delivery_id)
    if idempotency and claim(connection, principal, idempotency, delivery_id) is not None:
        return there
    if not deliveries.again(connection, webhook_id, delivery_id, now_ms()):
        raise Conflict("What this delivery tells of is erased. It cannot be made again.")
    return delivery(connection, app_id, webhook_id, delivery_id)


def found(connection: Connection, app_id: str, webhook_id: str) -> Row[Any]:
    """Return an app's webhook.

    Raises:
        NotFound: it has none with this id.
    """
    row = repository.find(connection, app_id, webhook_id)
    if row is None:
        raise unknown()
    return row


def delivery(connection: Connection, app_id: str, webhook_id: str, delivery_id: str) -> Row[Any]:
    """Return a delivery of an app's webhook.

    Raises:
        NotFound: there is none with this id.
    """
    found(connection, app_id, webhook_id)
    row = deliveries.find(connection, webhook_id, delivery_id)
    if row is None:
        raise unknown()
    return row


def _events(events: Any, run_events: Any) -> str:
    if not events and not run_events:
        message = "must name at least one event, or run_events must"
        raise BadInput(f"events {message}.", [FieldError(("events",), "missing", message)])
    return stored_events(events, run_events)


def _sealed(ring: KeyRing, app_id: str, webhook_id: str, signers: Signers) -> dict[str, Any]:
    sealed = ring.seal(signers.text(), KIND, app_id, webhook_id)
    return {"sealed": sealed, "key_id": sealed_by(sealed)}
