"""What is done with apps and keys, for the API and the command line alike."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row

from insula.apps import repository
from insula.apps.authenticate import Authenticator, digest, new_key
from insula.errors import BadInput, FieldError
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.storage.database import Database
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim, find_claim

BeforeDelete = Callable[[str], Awaitable[None]]
"""Called with an app's id before its rows go: cancels what runs, removes what it holds."""

ADMIN = Principal("", "admin")
"""Who asks with the installation's admin key; it has no app."""


async def create_app(
    database: Database,
    name: str,
    settings: bytes = b"{}",
    idempotency: Idempotency | None = None,
) -> tuple[Row[Any], str | None, str | None]:
    """Make an app with its first key; return its row, the key and the key's id.

    The key is ``None`` if this idempotency key has made the app before.
    """
    app_id, key = new_id("app"), new_key()

    def unit(connection: Connection) -> tuple[str, str | None]:
        if idempotency and (earlier := claim(connection, ADMIN, idempotency, app_id)):
            return earlier, None
        repository.insert_app(connection, app_id, name, settings)
        return app_id, repository.insert_key(connection, app_id, "first key", digest(key))

    made, key_id = await database.write(unit)
    row = await get_app(database, made)
    return row, key if key_id else None, key_id


async def get_app(database: Database, app_id: str) -> Row[Any]:
    """Return an app.

    Raises:
        NotFound.
    """
    row = await database.read(lambda connection: repository.find_app(connection, app_id))
    if row is None:
        raise unknown()
    return row


async def update_app(database: Database, app_id: str, changes: dict[str, object]) -> Row[Any]:
    """Change an app and return it.

    Raises:
        NotFound.
    """

    def unit(connection: Connection) -> Row[Any] | None:
        repository.update_app(connection, app_id, changes)
        return repository.find_app(connection, app_id)

    row = await database.write(unit)
    if row is None:
        raise unknown()
    return row


async def delete_app(
    database: Database,
    authenticator: Authenticator,
    app_id: str,
    before_delete: Sequence[BeforeDelete] = (),
) -> None:
    """Revoke an app's keys, let the hooks end what it runs, in their order, and remove it.

    A hook that fails leaves the app in place, without keys; it is gone on with, at the latest when
    it is deleted again.

    Raises:
        NotFound.
    """
    if not await database.write(partial(repository.begin_deletion, app_id=app_id)):
        raise unknown()
    authenticator.forget(app_id)
    for hook in before_delete:
        await hook(app_id)
    await database.write(partial(repository.delete_app, app_id=app_id))


async def create_key(
    database: Database,
    app_id: str,
    name: str = "key",
    read_only: bool = False,
    expires_at: int | None = None,
    claimed: tuple[Principal, Idempotency] | None = None,
) -> tuple[Row[Any], str | None]:
    """Make a key of an app; return its row and its text, which is ``None`` for a repeat.

    Raises:
        NotFound: there is no such app.
        BadInput: it would have expired already.
        Conflict: the app has too many keys.
    """
    key = new_key()

    def unit(connection: Connection) -> tuple[Row[Any] | None, str | None]:
        if not repository.is_there(connection, app_id):
            return None, None
        if claimed and (earlier := find_claim(connection, *claimed)):
            return repository.find_key(connection, app_id, earlier), None
        _check_ahead(expires_at)
        key_id = repository.insert_key(connection, app_id, name, digest(key), read_only, expires_at)
        if claimed:
            claim(connection, *claimed, key_id)
        return repository.find_key(connection, app_id, key_id), key

    row, text = await database.write(unit)
    if row is None:
        raise unknown()
    return row, text


def _check_ahead(expires_at: int | None) -> None:
    if expires_at is not None and expires_at <= now_ms():
        words = "must lie in the future"
        problem = FieldError(("expires_at",), "value_error", words)
        raise BadInput(f"The key cannot be made: expires_at: {words}.", [problem])


async def revoke_key(
    database: Database, app_id: str, key_id: str, authenticator: Authenticator | None = None
) -> None:
    """Revoke a key, at once and for ever; no matter if it was revoked before.

    Raises:
        NotFound: the app has no such key.
    """

    def unit(connection: Connection) -> bool:
        repository.revoke_keys(connection, app_id, key_id)
        return repository.find_key(connection, app_id, key_id) is not None

    found = await database.write(unit)
    if authenticator is not None:
        authenticator.forget(app_id, key_id)
    if not found:
        raise unknown()
