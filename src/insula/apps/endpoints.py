"""``/apps`` and their keys: with the installation's admin key, or with an app's own."""

import hmac
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from insula.apps import actions, repository
from insula.apps.actions import ADMIN, BeforeDelete
from insula.apps.authenticate import Authenticator
from insula.apps.schemas import (
    AppSchema,
    CreateAppSchema,
    CreatedAppSchema,
    CreatedKeySchema,
    CreateKeySchema,
    KeySchema,
    UpdateAppSchema,
    app_wire,
    key_wire,
)
from insula.errors import Forbidden, Unauthorized
from insula.kit.json import encode
from insula.settings import Settings
from insula.storage.database import Database
from insula.web.auth import OWN, Principal, authenticate_request, bearer, require_write, unknown
from insula.web.body import payload
from insula.web.idempotency import read_key
from insula.web.openapi import READS, WRITES, error_responses, request_body
from insula.web.pagination import Page, Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

_ADMIN_READS = {**READS, **error_responses(403)}


def is_admin(request: Request) -> bool:
    """Say whether the request carries the installation's admin key."""
    settings: Settings = request.app.state.settings
    if settings.admin_key is None:
        return False
    given = bearer(request).encode("latin-1")
    return hmac.compare_digest(given, settings.admin_key.get_secret_value().encode())


async def admin(request: Request) -> None:
    """FastAPI dependency: the admin key.

    Raises:
        Unauthorized: no key, or one that nobody knows.
        Forbidden: an app's key.
    """
    if is_admin(request):
        return
    if await request.app.state.authenticate(bearer(request)) is None:
        raise Unauthorized("This key is wrong, expired or revoked. Use the admin key.")
    raise Forbidden("This needs the installation's admin key (INSULA_ADMIN_KEY).")


async def owner(request: Request) -> Principal:
    """FastAPI dependency: the admin key, or a key of the path's app; answers for that app."""
    if not is_admin(request):
        return await authenticate_request(request)
    app_id: str = request.path_params["app_id"]
    if app_id == OWN:
        raise unknown()
    return Principal(app_id, ADMIN.key_id)


Admin = Depends(admin)
Owner = Annotated[Principal, Depends(owner)]


def router(
    database: Database,
    authenticator: Authenticator,
    before_delete: Sequence[BeforeDelete] = (),
) -> APIRouter:
    """Make the router. ``before_delete`` are called in order when an app is deleted."""
    routes = create_router("apps")
    _add_apps(routes, database)
    _add_app(routes, database, authenticator, before_delete)
    _add_keys(routes, database, authenticator)
    return routes


def _add_apps(routes: APIRouter, database: Database) -> None:
    @routes.post(
        "/apps",
        response_model=CreatedAppSchema,
        responses=WRITES,
        dependencies=[Admin],
        openapi_extra=request_body(CreateAppSchema),
    )
    async def create_app(request: Request) -> Response:
        """Make an app and its first key."""
        wanted = await payload(request, CreateAppSchema)
        row, key, key_id = await actions.create_app(
            database, wanted.name, _settings(wanted), read_key(request)
        )
        shown = {"key": key, "key_id": key_id} if key else {}
        return json_answer({**app_wire(row), **shown})

    @routes.get(
        "/apps", response_model=list[AppSchema], responses=_ADMIN_READS, dependencies=[Admin]
    )
    async def list_apps(page: Paging) -> Response:
        """List all apps, newest first."""
        rows, count = await database.read(
            lambda connection: repository.list_apps(
                connection, page.take + 1, page.offset, page.position("id")
            )
        )
        return _list([(row.id, app_wire(row)) for row in rows], page, count)


def _add_app(
    routes: APIRouter,
    database: Database,
    authenticator: Authenticator,
    before_delete: Sequence[BeforeDelete],
) -> None:
    @routes.get("/apps/{app_id}", response_model=AppSchema, responses=READS)
    async def get_app(principal: Owner) -> Response:
        """Read an app: with the admin key, or with its own (`c`)."""
        return json_answer(app_wire(await actions.get_app(database, principal.app_id)))

    @routes.patch(
        "/apps/{app_id}",
        response_model=AppSchema,
        responses=WRITES,
        dependencies=[Admin],
        openapi_extra=request_body(UpdateAppSchema),
    )
    async def update_app(request: Request, app_id: str) -> Response:
        """Change an app's name, settings or verified mark."""
        wanted = await payload(request, UpdateAppSchema)
        changes: dict[str, object] = {
            name: getattr(wanted, name)
            for name in ("name", "verified")
            if getattr(wanted, name) is not None
        }
        if wanted.settings is not None:
            changes["settings"] = _settings(wanted)
        return json_answer(app_wire(await actions.update_app(database, app_id, changes)))

    @routes.delete("/apps/{app_id}", response_model=None, responses=WRITES, dependencies=[Admin])
    async def delete_app(app_id: str) -> Response:
        """Delete an app: its keys are revoked, what it runs is cancelled, then all of it goes."""
        await actions.delete_app(database, authenticator, app_id, before_delete)
        return null_answer()


def _add_keys(routes: APIRouter, database: Database, authenticator: Authenticator) -> None:
    @routes.post(
        "/apps/{app_id}/keys",
        response_model=CreatedKeySchema,
        responses=WRITES,
        openapi_extra=request_body(CreateKeySchema),
    )
    async def create_key(request: Request, principal: Owner) -> Response:
        """Make a key. Its text is in this answer and never again."""
        require_write(principal)
        wanted = await payload(request, CreateKeySchema)
        idempotency = read_key(request)
        row, key = await actions.create_key(
            database,
            principal.app_id,
            wanted.name,
            wanted.read_only,
            wanted.expires_ms(),
            (principal, idempotency) if idempotency else None,
        )
        return json_answer({**key_wire(row), **({"key": key} if key else {})})

    @routes.get("/apps/{app_id}/keys", response_model=list[KeySchema], responses=READS)
    async def list_keys(principal: Owner, page: Paging) -> Response:
        """List an app's keys, newest first, revoked ones included."""
        await actions.get_app(database, principal.app_id)
        rows, count = await database.read(
            lambda connection: repository.list_keys(
                connection, principal.app_id, page.take + 1, page.offset, page.position("id")
            )
        )
        return _list([(row.id, key_wire(row)) for row in rows], page, count)

    @routes.delete("/apps/{app_id}/keys/{key_id}", response_model=None, responses=WRITES)
    async def revoke_key(key_id: str, principal: Owner) -> Response:
        """Revoke a key: from this answer on it is refused."""
        require_write(principal)
        await actions.revoke_key(database, principal.app_id, key_id, authenticator)
        return null_answer()


def _settings(wanted: CreateAppSchema | UpdateAppSchema) -> bytes:
    if wanted.settings is None:
        return b"{}"
    return encode(wanted.settings.model_dump(mode="json", exclude_none=True))


def _list(entries: Sequence[tuple[str, dict[str, Any]]], page: Page, count: int) -> Response:
    shown = entries[: page.take]
    following = {"id": shown[-1][0]} if len(entries) > page.take else None
    return list_answer([wire for _, wire in shown], page, count, next_cursor=following)
