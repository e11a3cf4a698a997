"""Makes a workflow, from what is sent or from a file that was exported."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.storage.database import Database
from insula.tags import repository as tags
from insula.web.auth import Principal
from insula.web.idempotency import Idempotency, claim
from insula.workflows import repository, retention
from insula.workflows.draft import key_from, prepare
from insula.workflows.render import BODY
from insula.workflows.repository import Workflow
from insula.workflows.schemas import CreateWorkflow


async def create(
    database: Database,
    principal: Principal,
    fields: CreateWorkflow,
    idempotency: Idempotency | None = None,
) -> str:
    """Make a workflow and return its id; with an idempotency key, perhaps of the one it made.

    Raises:
        BadInput: the body has problems, or a tag is unknown.
        KeyReused: the idempotency key was used with another body.
    """
    parts: dict[str, Any] = {name: getattr(fields, name) for name in BODY}
    if parts["key"] in (None, ""):
        parts["key"] = key_from(fields.name)
    draft = await prepare(parts)
    now = now_ms()
    workflow = Workflow(
        id=new_id("work"),
        app_id=principal.app_id,
        name=fields.name,
        description=fields.description,
        body=draft.body,
        problems=draft.problems,
        latest_version_id=None,
        latest_version=0,
        retention=retention.stored(fields.retention),
        tags=b"[]",
        enabled=fields.enabled,
        discoverable=False,
        open=True,
        published_from_version=None,
        caller_limit=None,
        deleted=False,
        created_at=now,
        updated_at=now,
        require_tests=None,
    )
    return await store(database, principal, workflow, idempotency, fields.tags_ids)


async def store(
    database: Database,
    principal: Principal,
    workflow: Workflow,
    idempotency: Idempotency | None,
    tags_ids: Sequence[str] = (),
) -> str:
    """Store a new workflow once for each idempotency key, and return its id.

    Raises:
        BadInput: a tag is unknown.
    """

    def unit(connection: Connection) -> str:
        if idempotency is not None:
            earlier = claim(connection, principal, idempotency, workflow.id)
            if earlier is not None:
                return earlier
        repository.store(connection, workflow)
        if tags_ids:
            tags.put_on(connection, workflow.app_id, workflow.id, tags_ids, "tags_ids")
        return workflow.id

    return await database.write(unit)
