"""The routes of an app's own workflows: authoring, settings, publication, callers."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from insula.storage.database import Database
from insula.web.auth import Reader, Writer, unknown
from insula.web.body import payload
from insula.web.fields import storable
from insula.web.idempotency import InFlight, read_key
from insula.web.openapi import READS, WRITES, none_given, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router
from insula.workflows import callers, export, repository, version_endpoints
from insula.workflows.answers import BlockedSchema, CallerSchema, WorkflowSchema
from insula.workflows.create import create
from insula.workflows.deploy import Settle, settle_nothing
from insula.workflows.duplicate import duplicate
from insula.workflows.paths import WORKFLOW, WORKFLOWS
from insula.workflows.remove import BeforeDelete, remove
from insula.workflows.render import app_members, list_bytes, workflow_bytes
from insula.workflows.resolve import Resolver
from insula.workflows.schemas import CreateWorkflow, DuplicateWorkflow, UpdateWorkflow
from insula.workflows.update import update

Search = Annotated[
    Annotated[str, AfterValidator(storable)] | None,
    Query(max_length=200, description="Words that the name or the description holds."),
]
Tags = Annotated[
    list[str],
    Query(default_factory=none_given, max_length=100, description="Ids of tags, all of them."),
]

_EXAMPLE = {
    "name": "Greeting",
    "steps": [
        {
            "type": "input",
            "key": "form",
            "input": {"name": {"type": "string"}},
            "destinations": ["greet"],
        },
        {"type": "code", "key": "greet", "code": "return `Hello, ${input.name}`"},
    ],
}


def router(
    database: Database,
    resolver: Resolver,
    before_delete: Sequence[BeforeDelete] = (),
    settle: Settle = settle_nothing,
) -> APIRouter:
    """Make the routes below ``/apps/{app_id}/workflows`` but those of runs and the catalogue."""
    routes = create_router("workflows")
    _add_reading(routes, database)
    _add_making(routes, database)
    _add_changing(routes, database, resolver, before_delete, settle)
    _add_callers(routes, database, resolver)
    version_endpoints.add(routes, database, resolver, settle)
    return routes


async def _answer(database: Database, app_id: str, workflow_id: str) -> Response:
    shown = await database.read(lambda c: repository.show(c, app_id, workflow_id))
    if shown is None:
        raise unknown()
    return json_answer(workflow_bytes(shown))


def _add_reading(routes: APIRouter, database: Database) -> None:
    @routes.get(
        WORKFLOWS,
        summary="List workflows",
        response_model=list[WorkflowSchema],
        responses=READS,
    )
    async def list_workflows(
        principal: Reader, page: Paging, tags: Tags, search: Search = None
    ) -> Response:
        """Newest first. `search` keeps what holds all its words in name or description."""
        found = await database.read(
            lambda c: repository.list_own(c, principal.app_id, search, tags, page)
        )
        body = list_bytes([workflow_bytes(shown) for shown in found.rows])
        return list_answer(body, page, found.count, found.capped, found.next_cursor)

    @routes.get(WORKFLOW, summary="Read a workflow", response_model=WorkflowSchema, responses=READS)
    async def get_workflow(principal: Reader, workflow_id: str) -> Response:
        """Its own members are the draft; `version` is the latest deployed one."""
        return await _answer(database, principal.app_id, workflow_id)

    @routes.get(
        WORKFLOW + "/export",
        summary="Export a workflow as a file",
        response_model=dict[str, Any],
        responses={
            **READS,
            200: {"description": "The file.", "content": {export.YAML_TYPE: {}}},
        },
    )
    async def export_workflow(
        principal: Reader,
        workflow_id: str,
        form: Annotated[Literal["json", "yaml"], Query(alias="format")] = "json",
    ) -> Response:
        """The draft and its settings, as `POST …/workflows/import` takes them."""
        workflow = await database.read(lambda c: repository.find(c, principal.app_id, workflow_id))
        if workflow is None:
            raise unknown()
        text = await export.write(workflow, form)
        disposition = f'attachment; filename="{export.filename(workflow, form)}"'
        media_type = export.YAML_TYPE if form == "yaml" else export.JSON_TYPE
        headers = {"Content-Disposition": disposition}
        return Response(text, headers=headers, media_type=media_type)


def _add_making(routes: APIRouter, database: Database) -> None:
    in_flight = InFlight()

    @routes.post(
        WORKFLOWS,
        summary="Create a workflow",
        response_model=WorkflowSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateWorkflow, example=_EXAMPLE),
    )
    async def create_workflow(principal: Writer, request: Request) -> Response:
        """Only `name` is required; what a draft lacks is filled in with empty values."""
        fields = await payload(request, CreateWorkflow)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await create(database, principal, fields, key)
        return await _answer(database, principal.app_id, made)

    @routes.post(
        WORKFLOWS + "/import",
        summary="Import a workflow from a file",
        response_model=WorkflowSchema,
        responses=WRITES,
        openapi_extra=_import_body(),
    )
    async def import_workflow(principal: Writer, request: Request) -> Response:
        """Takes what `…/export` gave, as JSON or as `application/yaml`."""
        fields = await export.read(request)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await create(database, principal, fields, key)
        return await _answer(database, principal.app_id, made)

    @routes.post(
        WORKFLOW + "/duplicate",
        summary="Copy a workflow",
        response_model=WorkflowSchema,
        responses=WRITES,
        openapi_extra=request_body(DuplicateWorkflow, required=False),
    )
    async def duplicate_workflow(principal: Writer, request: Request, workflow_id: str) -> Response:
        """The draft and its settings become a new workflow that is neither deployed nor shared."""
        fields = await payload(request, DuplicateWorkflow)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await duplicate(database, principal, workflow_id, fields, key)
        return await _answer(database, principal.app_id, made)


def _import_body() -> dict[str, Any]:
    documented = request_body(CreateWorkflow)
    documented["requestBody"]["content"][export.YAML_TYPE] = {"schema": {"type": "string"}}
    return documented


def _add_changing(
    routes: APIRouter,
    database: Database,
    resolver: Resolver,
    before_delete: Sequence[BeforeDelete],
    settle: Settle,
) -> None:
    @routes.patch(
        WORKFLOW,
        summary="Change a workflow",
        response_model=WorkflowSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateWorkflow),
    )
    async def update_workflow(principal: Writer, request: Request, workflow_id: str) -> Response:
        """What is left out stays. With `updated_at`, a change made meanwhile is a 409."""
        fields = await payload(request, UpdateWorkflow)
        updating = update(database, principal, workflow_id, fields, settle)
        await resolver.apply(workflow_id, updating)
        return await _answer(database, principal.app_id, workflow_id)

    @routes.delete(WORKFLOW, summary="Delete a workflow", responses=WRITES)
    async def delete_workflow(principal: Writer, workflow_id: str) -> Response:
        """First cancels what runs in it; other apps keep the runs that they made."""
        removing = remove(database, resolver, before_delete, principal.app_id, workflow_id)
        await resolver.apply(workflow_id, removing)
        return null_answer()


def _add_callers(routes: APIRouter, database: Database, resolver: Resolver) -> None:
    @routes.get(
        WORKFLOW + "/callers",
        summary="List callers",
        response_model=list[CallerSchema],
        responses=READS,
    )
    async def list_callers(principal: Reader, workflow_id: str, page: Paging) -> Response:
        """The other apps that ran this workflow, with counts, and those that are blocked."""
        found = await database.read(
            lambda c: callers.list_callers(c, principal.app_id, workflow_id, page)
        )
        if found is None:
            raise unknown()
        rows = [
            {"app": app_members(each.app), "blocked": each.blocked, "runs_count": each.runs_count}
            for each in found.rows
        ]
        return list_answer(rows, page, found.count, found.capped, found.next_cursor)

    one = WORKFLOW + "/callers/{caller_app_id}"

    @routes.put(one, summary="Block a caller", response_model=BlockedSchema, responses=WRITES)
    async def block_caller(principal: Writer, workflow_id: str, caller_app_id: str) -> Response:
        """To that app the workflow does not exist any more; its runs can be read and cancelled."""
        blocking = callers.block(database, principal, workflow_id, caller_app_id)
        await resolver.apply(workflow_id, blocking)
        return json_answer({"app_id": caller_app_id, "blocked": True})

    @routes.delete(one, summary="Unblock a caller", responses=WRITES)
    async def unblock_caller(principal: Writer, workflow_id: str, caller_app_id: str) -> Response:
        """Takes the block away, if there is one."""
        unblocking = callers.unblock(database, principal, workflow_id, caller_app_id)
        await resolver.apply(workflow_id, unblocking)
        return null_answer()
