"""``Idempotency-Key``: a record committed with what it created, and who is in flight."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy import ColumnElement, Connection, delete, insert, select
from starlette.requests import Request

from insula.errors import BadInput, Conflict, FieldError, KeyReused
from insula.kit.clock import DAY_MS, now_ms
from insula.storage.database import Database
from insula.storage.dialect import driver, is_postgres
from insula.storage.tables import idempotency as records
from insula.web.auth import Principal

LIFE_MS = DAY_MS
FINGERPRINT = "insula.fingerprint"
"""Where ``web.body`` leaves the digest of a body that it read, for requests with a key."""

_LONGEST = 255
_SWEEP = 1000
# One statement by the place of each row: four columns a row would cost many times that.
_SWEEP_SQLITE = """
    DELETE FROM idempotency WHERE rowid IN (
        SELECT rowid FROM idempotency WHERE created_at <= ? ORDER BY created_at LIMIT ?
    )
"""
_SWEEP_POSTGRES = """
    DELETE FROM idempotency WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM idempotency WHERE created_at <= ? ORDER BY created_at LIMIT ?
        FOR UPDATE SKIP LOCKED
    ))
"""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A key as it was sent: for which operation, and with which body."""

    key: str
    method: str
    path: str
    body_hash: bytes


def has_key(request: Request) -> bool:
    """Say whether the request carries an idempotency key."""
    return any(name == b"idempotency-key" for name, _ in request.scope["headers"])


def read_key(request: Request, body: bytes | None = None) -> Idempotency | None:
    """Return the request's idempotency key, ``None`` if it has none.

    Without ``body``, the digest of what ``web.body`` read from this request stands for it; a form
    sent again has another boundary, and counts as the same. Of a GET the query does.

    Raises:
        BadInput: the key is empty, too long, or not printable ASCII.
    """
    if not has_key(request):
        return None
    key = request.headers["idempotency-key"]
    if not 1 <= len(key) <= _LONGEST or not all(" " <= character <= "~" for character in key):
        message = f"must be 1 to {_LONGEST} printable ASCII characters"
        raise BadInput(
            f"The Idempotency-Key header {message}.",
            [FieldError(("idempotency-key",), "idempotency_key", message, "header")],
        )
    if body is None and request.method == "GET":
        body = request.scope["query_string"]
    fingerprint = hashlib.sha256(body or b"").digest()
    if body is None:
        fingerprint = request.scope.get(FINGERPRINT, fingerprint)
    return Idempotency(key, request.method, _path(request), fingerprint)


def _path(request: Request) -> str:
    """The path below the app, so that ``c`` and the app's id are one."""
    app_id = request.path_params.get("app_id")
    path: str = request.scope["path"]
    return path.removeprefix(f"/apps/{app_id}") if app_id else path


def find_claim(
    connection: Connection, principal: Principal, idempotency: Idempotency
) -> str | None:
    """Return the id that an earlier request with this key made, ``None`` if there was none.

    Raises:
        KeyReused: the key was used with another body in the last 24 hours.
    """
    query = select(records.c.body_hash, records.c.resource_id).where(
        _of(principal, idempotency), records.c.created_at > now_ms() - LIFE_MS
    )
    found = connection.execute(query).first()
    if found is None:
        return None
    if bytes(found.body_hash) != idempotency.body_hash:
        raise KeyReused(
            "This Idempotency-Key was used with another body in the last 24 hours. "
            "Use a new key for a new request."
        )
    return str(found.resource_id)


async def made_before(
    database: Database, principal: Principal, idempotency: Idempotency | None
) -> str | None:
    """Return the id that an earlier request with this key made, ``None`` if there was none.

    Asked before anything else is: what the first request presupposed may not hold any more.

    Raises:
        KeyReused: the key was used with another body in the last 24 hours.
    """
    if idempotency is None:
        return None
    return await database.read(partial(find_claim, principal=principal, idempotency=idempotency))


def _of(principal: Principal, idempotency: Idempotency) -> ColumnElement[bool]:
    return (
        (records.c.app_id == principal.app_id)
        & (records.c.method == idempotency.method)
        & (records.c.path == idempotency.path)
        & (records.c.key == idempotency.key)
    )


def claim(
    connection: Connection, principal: Principal, idempotency: Idempotency, resource_id: str
) -> str | None:
    """In a unit: record that this key made ``resource_id``.

    Returns ``None`` if the record is new, else the id that the earlier request made.

    Raises:
        KeyReused: the key was used with another body in the last 24 hours.
    """
    earlier = find_claim(connection, principal, idempotency)
    if earlier is not None:
        return earlier
    mine = _of(principal, idempotency)
    connection.execute(delete(records).where(mine))
    connection.execute(
        insert(records).values(
            app_id=principal.app_id,
            method=idempotency.method,
            path=idempotency.path,
            key=idempotency.key,
            body_hash=idempotency.body_hash,
            resource_id=resource_id,
            created_at=now_ms(),
        )
    )
    return None


def any_old(connection: Connection) -> bool:
    """Say whether a record is older than 24 hours, so that nobody writes for nothing."""
    query = select(records.c.created_at).where(records.c.created_at <= now_ms() - LIFE_MS).limit(1)
    return connection.execute(query).first() is not None


def sweep(connection: Connection, limit: int = _SWEEP) -> int:
    """Remove up to ``limit`` records older than 24 hours; return how many.

    A unit that may run aside: several processes remove different ones, and wait for nobody.
    """
    statement = _SWEEP_POSTGRES if is_postgres(connection) else _SWEEP_SQLITE
    return driver(connection).execute(statement, (now_ms() - LIFE_MS, limit)).rowcount


class InFlight:
    """Which keys are being worked on in this process; a second request meanwhile is a 409."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str, str, str]] = set()

    @contextmanager
    def hold(self, principal: Principal, idempotency: Idempotency | None) -> Iterator[None]:
        """Hold the key for the time of a request.

        Raises:
            Conflict: another request holds it.
        """
        if idempotency is None:
            yield
            return
        name = (principal.app_id, idempotency.method, idempotency.path, idempotency.key)
        if name in self._held:
            raise Conflict(
                "A request with this Idempotency-Key is still being worked on. Try again.",
                retry_after=1,
            )
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
