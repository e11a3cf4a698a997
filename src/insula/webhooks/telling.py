"""What is told: events that webhooks hear of, stored in the unit that makes them true.

A run that ends costs nothing where its app has no webhook for that: the apps that have one are
known here, and looked up anew every second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Connection

from insula.engine.events import RunEnded
from insula.engine.state import RunState
from insula.kit import json
from insula.kit.clock import iso, now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs.render import Sight, closed_to, shown_error, shown_result, usage_of
from insula.runs.rows import RunRow
from insula.webhooks import deliveries
from insula.workflows.resolve import Runnable

RESULT_MAX = 256 * 1024
"""Bytes of a result that is told; of a larger one it is told that it was left out."""

_EVENTS = {"FAILED": "run.failed", "CANCELLED": "run.cancelled"}


class Record(Protocol):
    """What is told of a record."""

    @property
    def id(self) -> str: ...
    @property
    def app_id(self) -> str: ...
    @property
    def collection_id(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def status(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def rules_count(self) -> int: ...
    @property
    def pass_count(self) -> int: ...
    @property
    def fail_count(self) -> int: ...
    @property
    def warn_count(self) -> int: ...
    @property
    def created_at(self) -> int: ...
    @property
    def updated_at(self) -> int: ...


@dataclass(slots=True)
class Teller:
    """Stores what is to be told."""

    wake: Callable[[], None]
    """Called when something new is stored."""
    apps: frozenset[str] = field(default_factory=frozenset)
    """The apps whose runs' ends are told."""

    def at_end(
        self, row: RunRow, state: RunState, ended: RunEnded, runnable: Runnable | None
    ) -> Callable[[Connection], None] | None:
        """Return what stores that a run has ended, if its app is to be told."""
        if row.app_id not in self.apps or row.depth or row.hidden or row.origin == "TEST":
            return None
        event = _EVENTS.get(ended.status, "run.completed")
        message = Message.of(event, _run_data(row, state, ended, runnable), ended.at)
        return partial(message.store, app_id=row.app_id, thing_id=row.id)

    def after_end(self, row: RunRow) -> None:
        """A run's end is stored."""
        if row.app_id in self.apps:
            self.wake()

    def record(self, connection: Connection, event: str, record: Record) -> None:
        """In the unit that makes an event of a record true: store that it is to be told."""
        message = Message.of(event, _record_data(record), now_ms())
        message.store(connection, app_id=record.app_id, thing_id=record.id)


@dataclass(frozen=True, slots=True)
class Message:
    """One event, as every webhook is told of it."""

    id: str
    event: str
    body: bytes
    at: int

    @classmethod
    def of(cls, event: str, data: object, at: int) -> "Message":
        """Make one with an id of its own."""
        message_id = new_id("msg")
        body = {"event": event, "data": data, "id": message_id, "created_at": iso(at)}
        return cls(message_id, event, json.encode(body), at)

    def store(
        self,
        connection: Connection,
        *,
        app_id: str,
        thing_id: str,
        webhook_id: str | None = None,
    ) -> None:
        """In a unit: let it be told."""
        deliveries.enqueue(
            connection,
            app_id=app_id,
            event=self.event,
            event_id=self.id,
            body=self.body,
            thing_id=thing_id,
            now=self.at,
            webhook_id=webhook_id,
        )


def _run_data(
    row: RunRow, state: RunState, ended: RunEnded, runnable: Runnable | None
) -> dict[str, Any]:
    """Say how a run ended, as its app may see it; its steps are to be read from the run itself."""
    seen = frozenset[str]() if runnable is None else closed_to(runnable, row.app_id)
    sight = Sight(None, None, seen)
    data: dict[str, Any] = {
        "id": row.id,
        "status": ended.status,
        "origin": row.origin,
        "app_id": row.app_id,
        "workflow_app_id": row.workflow_app_id,
        "workflow_id": row.workflow_id,
        "workflow_version_id": row.version_id,
        "started_at": None if row.started_at is None else iso(row.started_at),
        "ended_at": iso(ended.at),
        "created_at": iso(row.created_at),
        "usage": usage_of(row, state, sight),
    }
    if row.version is not None:
        data["version"] = row.version
    if row.identifier is not None:
        data["identifier"] = row.identifier
    if ended.error is not None:
        data["error"] = shown_error(ended.error, state, sight)
    result = json.encode(shown_result(state, sight))
    if len(result) > RESULT_MAX:
        return data | {"result": None, "result_omitted": True}
    return data | {"result": Raw(result)}


def _record_data(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status,
        "source": record.source,
        "collection_id": record.collection_id,
        "rules_count": record.rules_count,
        "rules_pass_count": record.pass_count,
        "rules_fail_count": record.fail_count,
        "rules_warn_count": record.warn_count,
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
    }
