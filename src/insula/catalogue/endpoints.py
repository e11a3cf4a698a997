"""The routes of the catalogue: what an app finds of all apps' published workflows."""

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import Response

from insula.catalogue import repository
from insula.kit.json import encode
from insula.storage.database import Database
from insula.web.auth import Reader, unknown
from insula.web.openapi import READS
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer
from insula.web.routing import create_router
from insula.workflows import access, version_repository
from insula.workflows.answers import WorkflowSchema, WorkflowVersionSchema
from insula.workflows.endpoints import Search, Tags
from insula.workflows.paths import DISCOVER
from insula.workflows.render import discovered_bytes, list_bytes, version_members
from insula.workflows.version_repository import Version

_ONE = DISCOVER + "/{workflow_id}"


def router(database: Database) -> APIRouter:
    """Make the routes below ``/apps/{app_id}/workflows/discover`` but those of runs."""
    routes = create_router("catalogue")

    @routes.get(
        DISCOVER,
        summary="List what can be run",
        response_model=list[WorkflowSchema],
        responses=READS,
    )
    async def list_discoverable(
        principal: Reader, page: Paging, tags: Tags, search: Search = None
    ) -> Response:
        """The published workflows of all apps, newest first."""
        found = await database.read(
            lambda c: repository.discover(c, principal.app_id, search, tags, page)
        )
        body = list_bytes([discovered_bytes(shown) for shown in found.rows])
        return list_answer(body, page, found.count, found.capped, found.next_cursor)

    @routes.get(
        _ONE, summary="Read a published workflow", response_model=WorkflowSchema, responses=READS
    )
    async def get_discoverable(principal: Reader, workflow_id: str) -> Response:
        """As its latest public version is; never the draft."""
        shown = await database.read(lambda c: repository.find(c, principal.app_id, workflow_id))
        if shown is None:
            raise unknown()
        return json_answer(discovered_bytes(shown))

    @routes.get(
        _ONE + "/versions/{version_id_or_version_number}",
        summary="Read a version of a published workflow",
        response_model=WorkflowVersionSchema,
        responses=READS,
    )
    async def get_discoverable_version(
        principal: Reader, workflow_id: str, version_id_or_version_number: str
    ) -> Response:
        """Those deployed since publication and not withdrawn exist."""
        selector = access.parse_selector(version_id_or_version_number)
        body = await database.read(lambda c: _version(c, principal.app_id, workflow_id, selector))
        return json_answer(body)

    return routes


def _version(
    connection: Connection, app_id: str, workflow_id: str, selector: access.Selector
) -> bytes:
    shown = repository.find(connection, app_id, workflow_id)
    if shown is None:
        raise unknown()
    if selector == access.DRAFT:
        raise access.refuse_draft()
    version: Version | None = shown.version
    if selector != access.LATEST:
        version = version_repository.find(connection, workflow_id, selector)
    start = shown.workflow.published_from_version
    if version is None or not access.is_public(start, version.version, version.withdrawn):
        raise unknown()
    return encode(version_members(version, not shown.workflow.open, outside=True))
