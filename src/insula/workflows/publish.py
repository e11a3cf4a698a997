"""Puts a workflow into the catalogue and takes it out; withdraws single versions from it."""

from sqlalchemy import Connection

from insula.errors import Conflict
from insula.storage.database import Database
from insula.web.auth import Principal, unknown
from insula.workflows import counts, facts, repository, version_repository
from insula.workflows.access import DRAFT, LATEST, Selector
from insula.workflows.repository import Workflow


def change(connection: Connection, workflow: Workflow, discoverable: bool) -> dict[str, object]:
    """In the unit that read ``workflow``: publish or unpublish; return the columns that change.

    Other apps find the version that is the latest at this moment, and those deployed from now on.

    Raises:
        Conflict: nothing is deployed, or the latest version is withdrawn.
    """
    if workflow.discoverable == discoverable:
        return {}
    if not discoverable:
        counts.change_published(connection, workflow.id, -1)
        return {"discoverable": False}
    if workflow.latest_version == 0:
        raise Conflict("Only a deployed workflow can be published: deploy it first")
    latest = version_repository.find(connection, workflow.id, workflow.latest_version)
    if latest is None or latest.withdrawn:
        raise Conflict("The latest version is withdrawn: deploy another before publishing")
    counts.change_published(connection, workflow.id, 1)
    return {"discoverable": True, "published_from_version": workflow.latest_version}


async def withdraw(
    database: Database,
    principal: Principal,
    workflow_id: str,
    selector: Selector,
    withdrawn: bool,
) -> str:
    """Hide a version from other apps, or show it again; return its id.

    Raises:
        Conflict: it is the last that other apps can see of a published workflow.
        NotFound: there is no such workflow or version.
    """

    def unit(connection: Connection) -> str:
        workflow = repository.find(connection, principal.app_id, workflow_id)
        if workflow is None or selector == DRAFT:
            raise unknown()
        wanted = workflow.latest_version if selector == LATEST else selector
        version = version_repository.find(connection, workflow_id, wanted)
        if version is None:
            raise unknown()
        version_repository.mark_withdrawn(connection, version.id, withdrawn)
        left = facts.load(connection, workflow_id)
        if workflow.discoverable and left is not None and left.public_version_id is None:
            raise Conflict(
                "This is the last version that other apps can see: "
                "deploy another first, or unpublish the workflow"
            )
        return version.id

    return await database.write(unit)
