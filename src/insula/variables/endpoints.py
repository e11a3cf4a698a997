"""``/apps/{app_id}/variables``: values that the app's workflows share; and ``/secrets/rotate``."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from starlette.responses import Response

from insula.adapters.keyring import Unreadable
from insula.adapters.sealed_rows import rotate
from insula.apps.endpoints import Admin
from insula.errors import Conflict
from insula.variables import actions, repository
from insula.variables.schemas import (
    AppVariableSchema,
    CreateAppVariableSchema,
    UpdateAppVariableSchema,
    variable_wire,
)
from insula.variables.scope import Variables
from insula.web.auth import Reader, Writer
from insula.web.body import payload, payloads
from insula.web.forms import MULTIPART
from insula.web.idempotency import read_key
from insula.web.openapi import READS, WRITES, error_responses, request_body
from insula.web.pagination import Page, Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

T = TypeVar("T")
_PATH = "/apps/{app_id}/variables"


class RotatedSchema(BaseModel):
    """What was encrypted anew."""

    rotated: int
    key_id: str


def router(variables: Variables) -> APIRouter:
    """Make the router."""
    routes = create_router("variables")
    _add_list(routes, variables)
    _add_one(routes, variables)
    _add_rotation(routes, variables)
    return routes


async def _changed(variables: Variables, app_id: str, unit: Callable[[Connection], T]) -> T:
    """Write, and forget what was kept of the app."""
    try:
        return await variables.database.write(unit)
    except IntegrityError:
        raise Conflict("Another request has just changed this variable. Try again.") from None
    finally:
        variables.changed(app_id)


def _add_list(routes: APIRouter, variables: Variables) -> None:
    @routes.get(_PATH, response_model=list[AppVariableSchema], responses=READS)
    async def list_variables(principal: Reader, page: Paging) -> Response:
        """List an app's variables by their keys. A secret's value is not among them."""
        return await _listed(variables, principal.app_id, page)

    @routes.post(
        _PATH,
        response_model=AppVariableSchema,
        responses=WRITES,
        openapi_extra=request_body(
            CreateAppVariableSchema,
            example={"key": "API_KEY", "value": "…", "secret": True, "hosts": ["api.example.com"]},
        ),
    )
    async def create_variable(request: Request, principal: Writer) -> Response:
        """Make a variable."""
        wanted = await payload(request, CreateAppVariableSchema)
        unit = partial(
            actions.create,
            ring=variables.ring,
            principal=principal,
            wanted=wanted,
            idempotency=read_key(request),
        )
        return json_answer(variable_wire(await _changed(variables, principal.app_id, unit)))

    @routes.patch(
        _PATH,
        response_model=list[AppVariableSchema],
        responses=WRITES,
        openapi_extra=_list_body(),
    )
    async def change_variables(request: Request, principal: Writer, page: Paging) -> Response:
        """Change variables, and make those that there are not, all together; list them."""
        wanted = await payloads(request, CreateAppVariableSchema, actions.MOST)
        app_id = principal.app_id
        unit = partial(actions.change_many, ring=variables.ring, app_id=app_id, wanted=wanted)
        await _changed(variables, app_id, unit)
        return await _listed(variables, app_id, page)


def _add_one(routes: APIRouter, variables: Variables) -> None:
    @routes.patch(
        _PATH + "/{key}",
        response_model=AppVariableSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateAppVariableSchema),
    )
    async def change_variable(request: Request, key: str, principal: Writer) -> Response:
        """Change a variable; another key renames it."""
        wanted = await payload(request, UpdateAppVariableSchema)
        app_id = principal.app_id
        unit = partial(actions.change, ring=variables.ring, app_id=app_id, key=key, wanted=wanted)
        return json_answer(variable_wire(await _changed(variables, app_id, unit)))

    @routes.delete(_PATH + "/{key}", response_model=None, responses=WRITES)
    async def delete_variable(key: str, principal: Writer) -> Response:
        """Remove a variable. Runs that have begun keep it to their end."""
        app_id = principal.app_id
        await _changed(variables, app_id, partial(actions.remove, app_id=app_id, key=key))
        return null_answer()


def _add_rotation(routes: APIRouter, variables: Variables) -> None:
    @routes.post(
        "/secrets/rotate",
        response_model=RotatedSchema,
        responses=error_responses(401, 403, 409, 429, 500, 503),
        dependencies=[Admin],
    )
    async def rotate_secrets() -> Response:
        """Encrypt every stored secret anew with the first key; what runs goes on."""
        try:
            count = await rotate(variables.database, variables.ring)
        except Unreadable as error:
            raise Conflict(f"Not all secrets could be encrypted anew: {error}.") from None
        return json_answer({"rotated": count, "key_id": variables.ring.current})


async def _listed(variables: Variables, app_id: str, page: Page) -> Response:
    query = partial(
        repository.list_today,
        app_id=app_id,
        take=page.take + 1,
        offset=page.offset,
        after=page.position("key"),
    )
    rows, count = await variables.database.read(query)
    shown = rows[: page.take]
    following = {"key": shown[-1].key} if len(rows) > page.take else None
    return list_answer([variable_wire(row) for row in shown], page, count, next_cursor=following)


def _list_body() -> dict[str, Any]:
    """Document a body that is a list."""
    one = request_body(CreateAppVariableSchema)["requestBody"]["content"]["application/json"]
    schema = {"type": "array", "items": one["schema"]}
    content = {kind: {"schema": schema} for kind in ("application/json", MULTIPART)}
    return {"requestBody": {"required": True, "content": content}}
