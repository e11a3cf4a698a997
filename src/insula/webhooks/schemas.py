"""Webhooks and their deliveries on the wire."""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Row

from insula.kit.clock import iso
from insula.kit.json import Raw, decode
from insula.web.fields import storable

RecordEvent = Literal["record.created", "record.running", "record.completed", "record.failed"]
RunEvent = Literal["run.completed", "run.failed", "run.cancelled"]
DeliveryStatus = Literal["ALL", "PENDING", "DELIVERED", "FAILED"]

TEST_EVENT: Final = "webhook.test"
_COVER = "***"


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or any(c <= " " or c in '<>"\\^`{|}' for c in text):
        raise ValueError("must be an http or https address such as https://example.com/hook")
    return storable(text)


Url = Annotated[
    str, Field(max_length=2000, json_schema_extra={"format": "uri"}), AfterValidator(_address)
]
Events = Annotated[list[RecordEvent], Field(max_length=20)]
RunEvents = Annotated[
    list[RunEvent], Field(max_length=20, description="Ours: ends of runs that are told, too.")
]


class CreateWebhookSchema(BaseModel):
    """An address, and of what it is told."""

    url: Url
    events: Events
    run_events: RunEvents = Field(default_factory=list)


class UpdateWebhookSchema(BaseModel):
    """Changes to a webhook; what is absent stays."""

    url: Url | None = None
    events: Events | None = None
    run_events: RunEvents | None = None
    enabled: bool | None = Field(None, description="Ours: switches it off, and on again.")


class WebhookSchema(BaseModel):
    """A webhook. Its secret is shown when it is made, and when it is made anew."""

    id: str
    url: str
    events: list[RecordEvent]
    run_events: list[RunEvent]
    enabled: bool
    disabled_reason: str | None = None
    secret: str | None = None
    created_at: str
    updated_at: str


class AttemptSchema(BaseModel):
    """One attempt to deliver: when, how long it took, and what was answered or went wrong."""

    at: str
    ms: int
    status: int | None = None
    error: str | None = None


class DeliverySchema(BaseModel):
    """An event that is told, or was. Its body goes with the data that it tells of."""

    id: str
    event: str
    status: str
    attempts: list[AttemptSchema]
    next_at: str | None = None
    body: dict[str, Any] | None = None
    created_at: str
    updated_at: str


def stored_events(*lists: Iterable[str]) -> str:
    """Write events as they are stored: each between commas, so that one is found as text."""
    return "".join(f"{event}," for each in lists for event in dict.fromkeys(each)).join((",", ""))


def covered(url: str) -> str:
    """Return an address without the password in it, for whoever may only read."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:{_COVER}@{host}"
    return url.replace(parts.netloc, netloc, 1)


def webhook_wire(
    row: Row[Any], secret: str | None = None, *, read_only: bool = False
) -> dict[str, Any]:
    """Put a row of ``webhooks`` into the shape of ``WebhookSchema``, as a key sees it."""
    events = [event for event in row.events.split(",") if event]
    wire: dict[str, Any] = {
        "id": row.id,
        "url": covered(row.url) if read_only else row.url,
        "events": [event for event in events if event.startswith("record.")],
        "run_events": [event for event in events if event.startswith("run.")],
        "enabled": bool(row.enabled),
    }
    if row.disabled_reason is not None:
        wire["disabled_reason"] = row.disabled_reason
    if secret is not None:
        wire["secret"] = secret
    return wire | {"created_at": iso(row.created_at), "updated_at": iso(row.updated_at)}


def delivery_wire(row: Row[Any], *, whole: bool = False) -> dict[str, Any]:
    """Put a row of ``deliveries`` into the shape of ``DeliverySchema``; ``whole`` has its body."""
    wire: dict[str, Any] = {
        "id": row.id,
        "event": row.event,
        "status": row.status,
        "attempts": decode(row.log),
    }
    if row.next_at is not None:
        wire["next_at"] = iso(row.next_at)
    if whole and row.body is not None:
        wire["body"] = Raw(row.body)
    return wire | {"created_at": iso(row.created_at), "updated_at": iso(row.updated_at)}
