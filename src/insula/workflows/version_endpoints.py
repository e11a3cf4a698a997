"""The routes of a workflow's versions: deploy, list, read, withdraw, roll back."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from insula.errors import BadInput
from insula.kit.json import encode
from insula.storage.database import Database
from insula.web.auth import Principal, Reader, Writer, unknown
from insula.web.body import payload
from insula.web.idempotency import Idempotency, InFlight, read_key
from insula.web.openapi import READS, WRITES, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer
from insula.workflows import publish, repository, version_repository
from insula.workflows.access import DRAFT, LATEST, Selector, parse_selector
from insula.workflows.answers import WorkflowVersionSchema
from insula.workflows.deploy import Settle, deploy
from insula.workflows.paths import WORKFLOW
from insula.workflows.render import list_bytes, version_members
from insula.workflows.resolve import Resolver
from insula.workflows.rollback import roll_back
from insula.workflows.schemas import DeployVersion, RollBack, UpdateVersion
from insula.workflows.version_repository import Version

_VERSIONS = WORKFLOW + "/versions"
_VERSION = _VERSIONS + "/{version_id_or_version_number}"

Deploys = Callable[[Idempotency | None], Coroutine[Any, Any, str]]


def add(routes: APIRouter, database: Database, resolver: Resolver, settle: Settle) -> None:
    """Add the routes of versions to those of workflows."""
    _add_reading(routes, database)
    _add_deploying(routes, database, resolver, settle)
    _add_withdrawing(routes, database, resolver)


def _add_reading(routes: APIRouter, database: Database) -> None:
    @routes.get(
        _VERSIONS,
        summary="List versions",
        response_model=list[WorkflowVersionSchema],
        responses=READS,
    )
    async def list_versions(principal: Reader, workflow_id: str, page: Paging) -> Response:
        """Newest first."""

        def query(connection: Connection) -> tuple[list[Version], int, dict[str, object] | None]:
            workflow = repository.find(connection, principal.app_id, workflow_id)
            if workflow is None:
                raise unknown()
            latest = workflow.latest_version
            rows, cursor = version_repository.list_versions(connection, workflow_id, latest, page)
            return rows, latest, cursor

        rows, count, cursor = await database.read(query)
        body = list_bytes([encode(version_members(row)) for row in rows])
        return list_answer(body, page, count, next_cursor=cursor)

    @routes.get(
        _VERSION, summary="Read a version", response_model=WorkflowVersionSchema, responses=READS
    )
    async def get_version(
        principal: Reader, workflow_id: str, version_id_or_version_number: str
    ) -> Response:
        """By number, by id, or `latest`."""
        selector = parse_selector(version_id_or_version_number)
        return await _answer(database, principal, workflow_id, selector)


async def _answer(
    database: Database, principal: Principal, workflow_id: str, selector: Selector
) -> Response:
    def query(connection: Connection) -> Version:
        workflow = repository.find(connection, principal.app_id, workflow_id)
        if workflow is None:
            raise unknown()
        if selector == DRAFT:
            raise BadInput("The draft is no version: read the workflow itself")
        wanted = workflow.latest_version if selector == LATEST else selector
        version = version_repository.find(connection, workflow_id, wanted)
        if version is None:
            raise unknown()
        return version

    return json_answer(encode(version_members(await database.read(query))))


def _add_deploying(
    routes: APIRouter, database: Database, resolver: Resolver, settle: Settle
) -> None:
    in_flight = InFlight()

    async def answer(
        request: Request, principal: Principal, workflow_id: str, deploys: Deploys
    ) -> Response:
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await resolver.apply(workflow_id, deploys(key))
        return await _answer(database, principal, workflow_id, made)

    @routes.post(
        _VERSIONS,
        summary="Deploy the draft",
        response_model=WorkflowVersionSchema,
        responses=WRITES,
        openapi_extra=request_body(DeployVersion, required=False),
    )
    async def deploy_version(principal: Writer, request: Request, workflow_id: str) -> Response:
        """Makes the draft a version with a new number, which never changes."""
        fields = await payload(request, DeployVersion)
        return await answer(
            request,
            principal,
            workflow_id,
            lambda key: deploy(database, principal, workflow_id, fields, key, settle),
        )

    @routes.post(
        WORKFLOW + "/rollback",
        summary="Return to an earlier version",
        response_model=WorkflowVersionSchema,
        responses=WRITES,
        openapi_extra=request_body(RollBack),
    )
    async def roll_back_version(principal: Writer, request: Request, workflow_id: str) -> Response:
        """Deploys an earlier version again under a new number; the draft stays as it is."""
        fields = await payload(request, RollBack)
        return await answer(
            request,
            principal,
            workflow_id,
            lambda key: roll_back(database, principal, workflow_id, fields, key, settle),
        )


def _add_withdrawing(routes: APIRouter, database: Database, resolver: Resolver) -> None:
    @routes.patch(
        _VERSION,
        summary="Withdraw a version",
        response_model=WorkflowVersionSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateVersion),
    )
    async def update_version(
        principal: Writer, request: Request, workflow_id: str, version_id_or_version_number: str
    ) -> Response:
        """Withdrawn, it does not exist for other apps; its own app may still run it."""
        fields = await payload(request, UpdateVersion)
        selector = parse_selector(version_id_or_version_number)
        withdrawing = publish.withdraw(database, principal, workflow_id, selector, fields.withdrawn)
        changed = await resolver.apply(workflow_id, withdrawing)
        return await _answer(database, principal, workflow_id, changed)
