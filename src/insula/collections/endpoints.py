"""The routes of collections: themselves, their rules and mappings, their triggers."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from sqlalchemy import Connection
from starlette.responses import Response

from insula.collections import actions, config, reading, record_endpoints, repository
from insula.collections.answers import CollectionSchema, ExtendedCollectionSchema, TriggerSchema
from insula.collections.remove import remove_collection
from insula.collections.schemas import (
    CreateCollection,
    CreateTrigger,
    UpdateCollection,
    UpdateConfig,
    UpdateTrigger,
)
from insula.collections.services import RecordServices
from insula.tags import repository as tags
from insula.web.auth import Reader, Writer
from insula.web.body import payload
from insula.web.fields import storable
from insula.web.idempotency import InFlight, read_key
from insula.web.openapi import READS, WRITES, none_given, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

COLLECTIONS = "/apps/{app_id}/collections"
COLLECTION = COLLECTIONS + "/{collection_id}"
_TRIGGERS = COLLECTION + "/triggers"
_TRIGGER = _TRIGGERS + "/{trigger_id}"

Search = Annotated[
    Annotated[str, AfterValidator(storable)] | None,
    Query(max_length=200, description="Words that the name or the description holds."),
]
TagsAsked = Annotated[
    list[Annotated[str, AfterValidator(storable)]],
    Query(
        alias="tags",
        default_factory=none_given,
        max_length=100,
        description="Ids or names of tags, all of them.",
    ),
]


def router(services: RecordServices) -> APIRouter:
    """Make the routes below ``/apps/{app_id}/collections``."""
    routes = create_router("collections")
    _add_collections(routes, services)
    _add_collection(routes, services)
    _add_config(routes, services)
    _add_triggers(routes, services)
    record_endpoints.add(routes, services, COLLECTION)
    return routes


def _add_collections(routes: APIRouter, services: RecordServices) -> None:
    database, in_flight = services.runs.database, InFlight()

    @routes.get(
        COLLECTIONS,
        summary="List collections",
        response_model=list[CollectionSchema],
        responses=READS,
    )
    async def list_collections(
        principal: Reader, page: Paging, tags_asked: TagsAsked, search: Search = None
    ) -> Response:
        """Newest first."""
        app_id = principal.app_id
        base = reading.base_of(services)

        def query(connection: Connection) -> tuple[list[dict[str, Any]], repository.Found]:
            wanted = tags.named(connection, app_id, tags_asked)
            found = repository.list_own(connection, app_id, search, wanted, page)
            return reading.listed(connection, found.rows, base), found

        shown, found = await database.read(query)
        return list_answer(shown, page, found.count, found.capped, found.following)

    @routes.post(
        COLLECTIONS,
        summary="Create a collection",
        response_model=ExtendedCollectionSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateCollection),
    )
    async def create_collection(principal: Writer, request: Request) -> Response:
        """With `from_collection_id` it has that one's rules and mappings."""
        fields = await payload(request, CreateCollection)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await actions.create(database, principal, fields, key)
        return json_answer(await reading.collection_bytes(services, principal.app_id, made))


def _add_collection(routes: APIRouter, services: RecordServices) -> None:
    @routes.get(
        COLLECTION,
        summary="Read a collection",
        response_model=ExtendedCollectionSchema,
        responses=READS,
    )
    async def get_collection(principal: Reader, collection_id: str) -> Response:
        """With the workflows and versions behind its rules."""
        found = await reading.collection_bytes(services, principal.app_id, collection_id)
        return json_answer(found)

    @routes.patch(
        COLLECTION,
        summary="Change a collection",
        response_model=ExtendedCollectionSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateCollection),
    )
    async def update_collection(
        principal: Writer, request: Request, collection_id: str
    ) -> Response:
        """What is left out stays."""
        fields = await payload(request, UpdateCollection)
        await actions.update(services.runs.database, principal, collection_id, fields)
        found = await reading.collection_bytes(services, principal.app_id, collection_id)
        return json_answer(found)

    @routes.delete(COLLECTION, summary="Delete a collection", responses=WRITES)
    async def delete_collection(principal: Writer, collection_id: str) -> Response:
        """First cancels what runs in it; its records, and the data of their runs, go with it."""
        await remove_collection(services, principal.app_id, collection_id)
        return null_answer()


def _add_config(routes: APIRouter, services: RecordServices) -> None:
    @routes.patch(
        COLLECTION + "/config",
        summary="Change rules and mappings",
        response_model=ExtendedCollectionSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateConfig),
    )
    async def update_config(principal: Writer, request: Request, collection_id: str) -> Response:
        """Each list is sent whole. Records keep the rules they have until `update-rules`."""
        fields = await payload(request, UpdateConfig)
        await config.change(services.runs, principal.app_id, collection_id, fields)
        found = await reading.collection_bytes(services, principal.app_id, collection_id)
        return json_answer(found)


def _add_triggers(routes: APIRouter, services: RecordServices) -> None:
    @routes.post(
        _TRIGGERS,
        summary="Add a trigger",
        response_model=TriggerSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateTrigger),
    )
    async def create_trigger(principal: Writer, request: Request, collection_id: str) -> Response:
        """Says where records come from, and what of an entity goes into which input."""
        fields = await payload(request, CreateTrigger)
        key = read_key(request)
        made = await config.add_trigger(services.runs, principal, collection_id, fields, key)
        return json_answer(made)

    @routes.patch(
        _TRIGGER,
        summary="Change a trigger",
        response_model=TriggerSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateTrigger),
    )
    async def update_trigger(
        principal: Writer, request: Request, collection_id: str, trigger_id: str
    ) -> Response:
        """What is left out stays."""
        fields = await payload(request, UpdateTrigger)
        app_id = principal.app_id
        changed = await config.change_trigger(
            services.runs, app_id, collection_id, trigger_id, fields
        )
        return json_answer(changed)

    @routes.delete(_TRIGGER, summary="Delete a trigger", responses=WRITES)
    async def delete_trigger(principal: Writer, collection_id: str, trigger_id: str) -> Response:
        """Records that came from it stay."""
        app_id = principal.app_id
        await config.change_trigger(services.runs, app_id, collection_id, trigger_id, None)
        return null_answer()
