"""What is done with connections: making and changing them, credentials sealed on the way in."""

from typing import Any, Final

from sqlalchemy import Connection, Row

from insula.adapters.keyring import KeyRing, sealed_by
from insula.connections import repository
from insula.connections.schemas import (
    COMPATIBLE,
    CreateConnectionSchema,
    UpdateConnectionSchema,
    provider_of,
    url_of,
)
from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import decode, encode
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim

KIND: Final = "connection"
MOST: Final = 200
"""Connections of one app."""
_KEY_LEAST = 8


def create(
    connection: Connection,
    ring: KeyRing,
    principal: Principal,
    wanted: CreateConnectionSchema,
    idempotency: Idempotency | None,
) -> Row[Any]:
    """In a unit: make a connection.

    Raises:
        BadInput: something that its type needs is missing.
        Conflict: the app has too many.
    """
    app_id, connection_id, now = principal.app_id, new_id("con"), now_ms()
    if idempotency and (earlier := claim(connection, principal, idempotency, connection_id)):
        return found(connection, app_id, earlier)
    if repository.count(connection, app_id) >= MOST:
        raise Conflict(f"This app has {MOST} connections. Remove those that are not used.")
    kept = _kept({}, wanted)
    kept["credentials"] = sorted(wanted.credentials)
    _check(wanted.type, kept, wanted.credentials)
    values = {
        "id": connection_id,
        "app_id": app_id,
        "name": wanted.name,
        "type": wanted.type,
        "settings": encode(kept),
        "created_at": now,
        "updated_at": now,
        **_sealed(ring, app_id, connection_id, wanted.credentials),
    }
    repository.insert_one(connection, values)
    return found(connection, app_id, connection_id)


def change(
    connection: Connection,
    ring: KeyRing,
    app_id: str,
    connection_id: str,
    wanted: UpdateConnectionSchema,
) -> Row[Any]:
    """In a unit: change a connection.

    Raises:
        NotFound: the app has none with this id.
        BadInput: something that its type needs would be missing, or stored credentials would go
            to another address.
    """
    row = found(connection, app_id, connection_id)
    before = decode(row.settings)
    kept = _kept(before, wanted)
    values: dict[str, Any] = {"updated_at": max(now_ms(), row.updated_at)}
    if wanted.credentials is not None:
        kept["credentials"] = sorted(wanted.credentials)
        values |= _sealed(ring, app_id, connection_id, wanted.credentials)
    _check(row.type, kept, wanted.credentials)
    if wanted.credentials is None and url_of(row.type, kept) != url_of(row.type, before):
        _check_none_stored(kept)
    if wanted.name is not None:
        values["name"] = wanted.name
    repository.change(connection, app_id, connection_id, {**values, "settings": encode(kept)})
    return found(connection, app_id, connection_id)


def remove(connection: Connection, app_id: str, connection_id: str) -> None:
    """In a unit: remove a connection.

    Raises:
        NotFound: the app has none with this id.
    """
    if not repository.remove(connection, app_id, connection_id):
        raise unknown()


def found(connection: Connection, app_id: str, connection_id: str) -> Row[Any]:
    """Return a connection of the app.

    Raises:
        NotFound: it has none with this id.
    """
    row = repository.find(connection, app_id, connection_id)
    if row is None:
        raise unknown()
    return row


def _kept(
    before: dict[str, Any], wanted: CreateConnectionSchema | UpdateConnectionSchema
) -> dict[str, Any]:
    names = ("base_url", "provider", "settings")
    given = {name: getattr(wanted, name) for name in names if name in wanted.model_fields_set}
    return {name: value for name, value in {**before, **given}.items() if value is not None}


def _sealed(
    ring: KeyRing, app_id: str, connection_id: str, credentials: dict[str, str]
) -> dict[str, Any]:
    sealed = ring.seal(encode(credentials).decode(), KIND, app_id, connection_id)
    return {"sealed": sealed, "key_id": sealed_by(sealed)}


def _check_none_stored(kept: dict[str, Any]) -> None:
    """Refuse another address for credentials that are stored: whoever may change it could read
    them there, and they are shown to nobody."""
    if kept.get("credentials"):
        message = "send them anew with another base_url: what is stored goes to no other address"
        problem = FieldError(("credentials",), "missing", message)
        raise BadInput(f"The connection cannot be changed: credentials: {message}.", [problem])


def _check(kind: str, kept: dict[str, Any], credentials: dict[str, str] | None) -> None:
    problems: list[FieldError] = []
    provider = provider_of(kind, kept)
    if kind == COMPATIBLE and provider is None:
        problems.append(FieldError(("provider",), "missing", "say what model steps call it"))
    if (provider is not None or kind == COMPATIBLE) and url_of(kind, kept) is None:
        problems.append(FieldError(("base_url",), "missing", "give the base URL of its API"))
    if provider is None and kind != COMPATIBLE and "base_url" in kept:
        problems.append(FieldError(("base_url",), "type", "is for model providers alone"))
    key = None if credentials is None else credentials.get("api_key")
    if credentials is not None and provider is not None and key is None and kind != COMPATIBLE:
        problems.append(FieldError(("credentials", "api_key"), "missing", "give the key"))
    if key is not None and len(key) < _KEY_LEAST:
        message = f"a key has at least {_KEY_LEAST} characters"
        problems.append(FieldError(("credentials", "api_key"), "too_short", message))
    if problems:
        named = "; ".join(f"{'.'.join(one.path)}: {one.message}" for one in problems)
        raise BadInput(f"The connection cannot be stored: {named}.", problems)
