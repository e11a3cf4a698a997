"""Copies a workflow's draft and settings into a new workflow of the same app."""

from dataclasses import replace

from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.storage.database import Database
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency
from insula.workflows import repository
from insula.workflows.create import store
from insula.workflows.schemas import DuplicateWorkflow

_NAME_LENGTH = 200


async def duplicate(
    database: Database,
    principal: Principal,
    workflow_id: str,
    fields: DuplicateWorkflow,
    idempotency: Idempotency | None = None,
) -> str:
    """Copy a workflow, without its versions, callers and publication; return the copy's id.

    Raises:
        NotFound: there is no such workflow.
    """
    original = await database.read(
        lambda connection: repository.find(connection, principal.app_id, workflow_id)
    )
    if original is None:
        raise unknown()
    now = now_ms()
    copy = replace(
        original,
        id=new_id("work"),
        name=fields.name or _copied(original.name),
        latest_version_id=None,
        latest_version=0,
        discoverable=False,
        open=True,
        published_from_version=None,
        caller_limit=None,
        created_at=now,
        updated_at=now,
    )
    return await store(database, principal, copy, idempotency)


def _copied(name: str) -> str:
    suffix = " (copy)"
    return name[: _NAME_LENGTH - len(suffix)] + suffix
