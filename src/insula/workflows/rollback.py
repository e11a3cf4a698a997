"""Returns to an earlier version, by deploying it again; the draft stays as it is."""

from dataclasses import replace

from sqlalchemy import Connection

from insula.errors import BadInput, FieldError
from insula.kit.ids import new_id
from insula.storage.database import Database
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim
from insula.workflows import repository, version_repository
from insula.workflows.access import DRAFT, LATEST, parse_selector
from insula.workflows.deploy import Settle, next_version, refuse_same, settle_nothing
from insula.workflows.schemas import RollBack


async def roll_back(
    database: Database,
    principal: Principal,
    workflow_id: str,
    fields: RollBack,
    idempotency: Idempotency | None = None,
    settle: Settle = settle_nothing,
) -> str:
    """Make an earlier version the latest again, under a new number; return the new one's id.

    Raises:
        BadInput: ``version`` names none in particular.
        Conflict: it is what the latest version is, and ``force`` is not set.
        NotFound: there is no such workflow or version.
    """
    made = new_id("workv")
    selector = parse_selector(fields.version)
    if selector in (DRAFT, LATEST):
        words = "must be the number or the id of an earlier version"
        raise BadInput(f"version {words}", [FieldError(("version",), "version", words)])

    def unit(connection: Connection) -> str:
        workflow = repository.find(connection, principal.app_id, workflow_id)
        if workflow is None:
            raise unknown()
        if idempotency is not None:
            earlier = claim(connection, principal, idempotency, made)
            if earlier is not None:
                return earlier
        source = version_repository.find(connection, workflow_id, selector)
        if source is None:
            raise unknown()
        version = replace(
            next_version(workflow, made, source.body, principal),
            rollback_version=source.version,
            description=source.description,
            notes=fields.notes,
        )
        if not fields.force:
            refuse_same(connection, workflow, version)
        version_repository.store(connection, version)
        settle(connection, workflow_id)
        return made

    return await database.write(unit)
