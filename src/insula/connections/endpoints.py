"""``/apps/{app_id}/connections``: how the app's workflows reach model providers and services."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from insula.adapters.keyring import Unreadable
from insula.connections import actions, repository
from insula.connections.examine import examine
from insula.connections.opening import Connections
from insula.connections.schemas import (
    ConnectionSchema,
    ConnectionTestSchema,
    CreateConnectionSchema,
    UpdateConnectionSchema,
    connection_wire,
)
from insula.engine.ports import Http
from insula.errors import Conflict
from insula.web.auth import Reader, Writer
from insula.web.body import payload
from insula.web.idempotency import read_key
from insula.web.openapi import READS, WRITES, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

T = TypeVar("T")
_PATH = "/apps/{app_id}/connections"
_ONE = _PATH + "/{connection_id}"


def router(connections: Connections, http: Http) -> APIRouter:
    """Make the router. ``http`` sends what tests a connection."""
    routes = create_router("connections")
    _add_list(routes, connections)
    _add_one(routes, connections)
    _add_test(routes, connections, http)
    return routes


async def _changed(connections: Connections, app_id: str, unit: Callable[[Connection], T]) -> T:
    try:
        return await connections.database.write(unit)
    finally:
        connections.changed(app_id)


def _add_list(routes: APIRouter, connections: Connections) -> None:
    @routes.get(_PATH, response_model=list[ConnectionSchema], responses=READS)
    async def list_connections(principal: Reader, page: Paging) -> Response:
        """List an app's connections, newest first. Their credentials are not among them."""
        query = partial(
            repository.list_page,
            app_id=principal.app_id,
            take=page.take + 1,
            offset=page.offset,
            before=page.position(),
        )
        rows, count = await connections.database.read(query)
        shown = rows[: page.take]
        following = {"before": shown[-1].id} if len(rows) > page.take else None
        wire = [connection_wire(row) for row in shown]
        return list_answer(wire, page, count, next_cursor=following)

    @routes.post(
        _PATH,
        response_model=ConnectionSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateConnectionSchema),
    )
    async def create_connection(request: Request, principal: Writer) -> Response:
        """Make a connection. Its credentials are encrypted and never shown."""
        wanted = await payload(request, CreateConnectionSchema)
        unit = partial(
            actions.create,
            ring=connections.ring,
            principal=principal,
            wanted=wanted,
            idempotency=read_key(request),
        )
        return json_answer(connection_wire(await _changed(connections, principal.app_id, unit)))


def _add_one(routes: APIRouter, connections: Connections) -> None:
    @routes.get(_ONE, response_model=ConnectionSchema, responses=READS)
    async def get_connection(connection_id: str, principal: Reader) -> Response:
        """Read a connection."""
        query = partial(actions.found, app_id=principal.app_id, connection_id=connection_id)
        return json_answer(connection_wire(await connections.database.read(query)))

    @routes.patch(
        _ONE,
        response_model=ConnectionSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateConnectionSchema),
    )
    async def change_connection(
        request: Request, connection_id: str, principal: Writer
    ) -> Response:
        """Change a connection; credentials that are sent replace all that there were."""
        wanted = await payload(request, UpdateConnectionSchema)
        unit = partial(
            actions.change,
            ring=connections.ring,
            app_id=principal.app_id,
            connection_id=connection_id,
            wanted=wanted,
        )
        return json_answer(connection_wire(await _changed(connections, principal.app_id, unit)))

    @routes.delete(_ONE, response_model=None, responses=WRITES)
    async def delete_connection(connection_id: str, principal: Writer) -> Response:
        """Remove a connection. Runs that have begun use it to their end."""
        unit = partial(actions.remove, app_id=principal.app_id, connection_id=connection_id)
        await _changed(connections, principal.app_id, unit)
        return null_answer()


def _add_test(routes: APIRouter, connections: Connections, http: Http) -> None:
    @routes.post(_ONE + "/test", response_model=ConnectionTestSchema, responses=WRITES)
    async def test_connection(connection_id: str, principal: Writer) -> Response:
        """Ask the provider for its models, and say what came of it."""
        try:
            opened = await connections.open(principal.app_id, connection_id)
        except Unreadable as error:
            raise Conflict(f"The credentials cannot be read: {error}.") from None
        return json_answer(await examine(http, principal.app_id, opened))
