"""Deploys a workflow's draft: a new version, numbered, that never changes."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import decode
from insula.storage.database import Database
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim
from insula.workflows import repository, version_repository
from insula.workflows.repository import Workflow
from insula.workflows.schemas import DeployVersion
from insula.workflows.tests_of import refuse_untested
from insula.workflows.version_repository import Version

Settle = Callable[[Connection, str], None]
"""Called with a workflow's id in the unit that changes which version of it runs, or whether any
does: lets what depends on that follow, or raises, and then nothing is changed."""


def settle_nothing(connection: Connection, workflow_id: str) -> None:
    """Nothing depends on it."""


async def deploy(
    database: Database,
    principal: Principal,
    workflow_id: str,
    fields: DeployVersion,
    idempotency: Idempotency | None = None,
    settle: Settle = settle_nothing,
) -> str:
    """Make the draft the latest version, and return that version's id.

    Raises:
        BadInput: the draft has problems; one entry for each.
        Conflict: the draft is what the latest version is, or the workflow requires its tests to
            pass and they have not passed on it; ``force`` is not set.
        NotFound: there is no such workflow.
    """
    made = new_id("workv")

    def unit(connection: Connection) -> str:
        workflow = repository.find(connection, principal.app_id, workflow_id)
        if workflow is None:
            raise unknown()
        if idempotency is not None:
            earlier = claim(connection, principal, idempotency, made)
            if earlier is not None:
                return earlier
        _refuse_problems(workflow)
        version = next_version(workflow, made, workflow.body, principal)
        described = replace(version, notes=fields.notes, description=fields.description)
        if not fields.force:
            refuse_same(connection, workflow, described)
            if workflow.require_tests:
                refuse_untested(connection, workflow_id, described.body_hash)
        version_repository.store(connection, described)
        settle(connection, workflow_id)
        return made

    return await database.write(unit)


def next_version(workflow: Workflow, version_id: str, body: bytes, by: Principal) -> Version:
    """Make the row that follows a workflow's latest version."""
    return Version(
        id=version_id,
        app_id=workflow.app_id,
        workflow_id=workflow.id,
        version=workflow.latest_version + 1,
        rollback_version=None,
        description=None,
        notes=None,
        created_by=by.key_id,
        body=body,
        body_hash=digest(body),
        withdrawn=False,
        created_at=now_ms(),
    )


def refuse_same(connection: Connection, workflow: Workflow, version: Version) -> None:
    """Refuse a version that says what the latest one says.

    Raises:
        Conflict: it does.
    """
    if workflow.latest_version_id is None:
        return
    latest = version_repository.find(connection, workflow.id, workflow.latest_version_id)
    if latest is not None and latest.body_hash == version.body_hash:
        raise Conflict(
            f"Version {latest.version} is the same already: send force: true to deploy it again",
            [
                FieldError(
                    ("versions", str(latest.version)), "same_version", "It has this very body"
                )
            ],
        )


def _refuse_problems(workflow: Workflow) -> None:
    problems = decode(workflow.problems)
    if not problems:
        return
    errors = [FieldError(tuple(each["path"]), each["code"], each["message"]) for each in problems]
    first = errors[0].message
    raise BadInput(f"The draft has problems that must be solved before a deploy: {first}", errors)


def digest(body: bytes) -> bytes:
    """Name a body by what it says."""
    return hashlib.sha256(body).digest()
