"""The routes of an app's tags."""

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from insula.errors import Conflict
from insula.kit.ids import new_id
from insula.storage.database import Database
from insula.tags import repository
from insula.tags.schemas import CreateTag, TagSchema, UpdateTag, tag_wire
from insula.web.auth import Principal, Reader, Writer, unknown
from insula.web.body import payload
from insula.web.idempotency import Idempotency, claim, read_key
from insula.web.openapi import READS, WRITES, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

_TAGS = "/apps/{app_id}/tags"
_TAG = _TAGS + "/{tag_id}"


def router(database: Database) -> APIRouter:
    """Make the routes below ``/apps/{app_id}/tags``."""
    routes = create_router("tags")
    _add_list(routes, database)
    _add_one(routes, database)
    return routes


def _add_list(routes: APIRouter, database: Database) -> None:
    @routes.get(_TAGS, summary="List tags", response_model=list[TagSchema], responses=READS)
    async def list_tags(principal: Reader, page: Paging) -> Response:
        """By name."""
        rows, count, following = await database.read(
            lambda c: repository.list_own(c, principal.app_id, page)
        )
        return list_answer([tag_wire(row) for row in rows], page, count, next_cursor=following)

    @routes.post(
        _TAGS,
        summary="Create a tag",
        response_model=TagSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateTag),
    )
    async def create_tag(request: Request, principal: Writer) -> Response:
        """Names are unique in an app."""
        wanted = await payload(request, CreateTag)
        key = read_key(request)
        row = await database.write(lambda c: _make(c, principal, wanted, key))
        return json_answer(row)


def _make(
    connection: Connection, principal: Principal, wanted: CreateTag, key: Idempotency | None
) -> dict[str, object]:
    tag_id = new_id("tag")
    earlier = None if key is None else claim(connection, principal, key, tag_id)
    if earlier is None:
        repository.store(connection, tag_id, principal.app_id, wanted.name, wanted.color)
    row = repository.find(connection, principal.app_id, earlier or tag_id)
    if row is None:
        raise Conflict("The tag that this Idempotency-Key created is gone; use a new key")
    return tag_wire(row)


def _add_one(routes: APIRouter, database: Database) -> None:
    @routes.patch(
        _TAG,
        summary="Change a tag",
        response_model=TagSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateTag),
    )
    async def update_tag(request: Request, principal: Writer, tag_id: str) -> Response:
        """What is left out stays; what has the tag keeps it."""
        wanted = await payload(request, UpdateTag)
        given = wanted.model_fields_set
        values: dict[str, object] = {
            name: getattr(wanted, name) for name in ("name", "color") if name in given
        }
        if values.get("name", "") is None:
            del values["name"]
        row = await database.write(lambda c: repository.change(c, principal.app_id, tag_id, values))
        if row is None:
            raise unknown()
        return json_answer(tag_wire(row))

    @routes.delete(_TAG, summary="Delete a tag", response_model=None, responses=WRITES)
    async def delete_tag(principal: Writer, tag_id: str) -> Response:
        """It goes from everything that has it."""
        if not await database.write(lambda c: repository.remove(c, principal.app_id, tag_id)):
            raise unknown()
        return null_answer()
