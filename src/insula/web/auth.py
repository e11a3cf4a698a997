"""Who is asking: the bearer key of a request, and whether the path's app is theirs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from insula.errors import Forbidden, NotFound, Unauthorized


@dataclass(frozen=True, slots=True)
class Principal:
    """A key that was recognised: whose it is, and what it may do."""

    app_id: str
    key_id: str
    read_only: bool = False


Authenticate = Callable[[str], Awaitable[Principal | None]]
"""Looks up a key; ``None`` if it is unknown, expired or revoked. In ``app.state.authenticate``."""

OWN = "c"
"""In a path, the key's own app."""

_SCHEME = b"bearer "
_LONGEST = 200


def unknown() -> NotFound:
    """Make the one 404 for things: absent, another app's, or not for this caller."""
    return NotFound("There is no such thing here, or it belongs to another app. Check the id.")


def bearer(connection: HTTPConnection) -> str:
    """Return the key that the request carries.

    Raises:
        Unauthorized: there is none.
    """
    for name, value in connection.scope["headers"]:
        if name == b"authorization":
            if value[:7].lower() != _SCHEME or len(value) > _LONGEST:
                break
            return str(value[7:].strip(), "latin-1")
    raise Unauthorized("No key was sent. Send it as `Authorization: Bearer <key>`.")


async def authenticate_request(request: HTTPConnection) -> Principal:
    """Resolve the key and the path's ``app_id``, if it has one; for plain Starlette routes.

    Raises:
        Unauthorized: no key, or one that is wrong, expired or revoked.
        NotFound: the path names another app.
    """
    authenticate: Authenticate = request.app.state.authenticate
    principal = await authenticate(bearer(request))
    if principal is None:
        raise Unauthorized("This key is wrong, expired or revoked. Use a current one.")
    app_id = request.scope["path_params"].get("app_id", OWN)
    if app_id not in (OWN, principal.app_id):
        raise unknown()
    return principal


def require_write(principal: Principal) -> Principal:
    """Return the principal unless it may only read.

    Raises:
        Forbidden: the key is read-only.
    """
    if principal.read_only:
        raise Forbidden("This key may only read. Use a key without the read-only scope.")
    return principal


async def reader(request: Request) -> Principal:
    """FastAPI dependency: any current key of the path's app."""
    return await authenticate_request(request)


async def writer(request: Request) -> Principal:
    """FastAPI dependency: a current key of the path's app that may write."""
    return require_write(await authenticate_request(request))


Reader = Annotated[Principal, Depends(reader)]
Writer = Annotated[Principal, Depends(writer)]
