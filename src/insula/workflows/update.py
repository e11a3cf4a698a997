"""Changes a workflow: its draft, its settings, its publication. No update is lost."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import iso, now_ms
from insula.storage.database import Database
from insula.tags import repository as tags
from insula.web.auth import Principal, unknown
from insula.workflows import publish, repository, retention
from insula.workflows.deploy import Settle, settle_nothing
from insula.workflows.draft import merged, prepare
from insula.workflows.render import BODY
from insula.workflows.repository import Workflow
from insula.workflows.schemas import UpdateWorkflow

_TRIES = 10
_PLAIN = ("name", "description", "enabled", "caller_limit", "require_tests")


async def update(
    database: Database,
    principal: Principal,
    workflow_id: str,
    fields: UpdateWorkflow,
    settle: Settle = settle_nothing,
) -> None:
    """Apply what was sent, and nothing else.

    With ``updated_at`` the change applies to that state only; without it, to whatever is stored.

    Raises:
        BadInput: the body would have problems, a tag is unknown, ``updated_at`` is no time.
        Conflict: the workflow changed since ``updated_at``, or cannot be published.
        NotFound: there is no such workflow.
    """
    base = None if fields.updated_at is None else _milliseconds(fields.updated_at)
    for _ in range(_TRIES):
        read = await database.read(lambda c: repository.find(c, principal.app_id, workflow_id))
        if read is None:
            raise unknown()
        if base is not None and read.updated_at != base:
            break
        values = await _values(read, fields)
        storing = partial(_store, read=read, fields=fields, values=values, settle=settle)
        if await database.write(storing):
            return
    raise _overtaken()


async def _values(read: Workflow, fields: UpdateWorkflow) -> dict[str, object]:
    given = fields.model_fields_set
    values: dict[str, object] = {name: getattr(fields, name) for name in _PLAIN if name in given}
    if "retention" in given:
        values["retention"] = retention.stored(fields.retention)
    changes: dict[str, Any] = {name: getattr(fields, name) for name in BODY if name in given}
    if changes:
        draft = await prepare(merged(read.body, changes))
        values |= {"body": draft.body, "problems": draft.problems}
    return values


def _store(
    connection: Connection,
    *,
    read: Workflow,
    fields: UpdateWorkflow,
    values: Mapping[str, object],
    settle: Settle,
) -> bool:
    """Return whether the workflow is still what was read; if not, nothing is touched."""
    now = repository.find(connection, read.app_id, read.id)
    if now is None or now.updated_at != read.updated_at:
        return False
    given = fields.model_fields_set
    changed = dict(values)
    if "open" in given:
        changed["open"] = fields.open
    if "discoverable" in given:
        changed |= publish.change(connection, now, fields.discoverable)
    changed["updated_at"] = max(now_ms(), read.updated_at + 1)  # so that it names one state
    if not repository.change(connection, now, changed):
        raise _overtaken()  # undoes the unit, the counts of the catalogue included
    if "tags_ids" in given:
        tags.put_on(connection, now.app_id, now.id, fields.tags_ids, "tags_ids")
    if "enabled" in changed:
        settle(connection, read.id)
    return True


def _overtaken() -> Conflict:
    return Conflict(
        "The workflow was changed meanwhile: read it again and repeat the change on what it is now"
    )


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        words = f"must be a time as answers give it, such as {iso(0)}"
        problem = FieldError(("updated_at",), "time", words)
        raise BadInput(f"updated_at {words}", [problem]) from error
