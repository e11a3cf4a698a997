"""Rows of apps and keys. Every function takes a connection: inside a unit, or a read."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, text, update

from insula.errors import Conflict
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.storage.counters import Bumps, bump, count
from insula.storage.tables import apps, idempotency, keys

KEYS_MAX = 1000
"""Keys of one app, revoked ones included; then the oldest revoked one makes room."""

_DELETED_AT_ONCE = 10
_KNOWN = apps.c.deleting.is_not(False)
_COUNTED = "APPS"
"""The status under which apps are counted, for the app id that no run has: the empty one."""


def insert_app(connection: Connection, app_id: str, name: str, settings: bytes = b"{}") -> None:
    """Add an app and count it."""
    now = now_ms()
    connection.execute(
        insert(apps).values(
            id=app_id,
            name=name,
            verified=False,
            settings=settings,
            created_at=now,
            updated_at=now,
        )
    )
    bump(connection, "", "", _COUNTED, "")


def find_app(connection: Connection, app_id: str) -> Row[Any] | None:
    """Return an app."""
    return connection.execute(select(apps).where(apps.c.id == app_id, _KNOWN)).first()


def list_apps(
    connection: Connection, take: int, offset: int, before: str | None
) -> tuple[Sequence[Row[Any]], int]:
    """Return up to ``take`` apps, newest first, and how many there are in all."""
    query = select(apps).where(_KNOWN).order_by(apps.c.id.desc()).limit(take).offset(offset)
    if before is not None:
        query = query.where(apps.c.id < before)
    return connection.execute(query).all(), count(connection, "", status=_COUNTED)


def rows_by_counter(connection: Connection) -> Bumps:
    """Count the rows themselves, as the counter should have them."""
    everybody = select(func.count()).select_from(apps).where(_KNOWN)
    return {("", "", _COUNTED, ""): connection.scalar(everybody) or 0}


def update_app(connection: Connection, app_id: str, changes: Mapping[str, object]) -> None:
    """Change an app."""
    statement = update(apps).where(apps.c.id == app_id, _KNOWN)
    connection.execute(statement.values(**changes, updated_at=now_ms()))


def is_there(connection: Connection, app_id: str) -> bool:
    """Say whether there is an app, and nobody is deleting it."""
    query = select(apps.c.id).where(apps.c.id == app_id, apps.c.deleting.is_(None))
    return connection.execute(query).first() is not None


def begin_deletion(connection: Connection, app_id: str) -> bool:
    """Revoke an app's keys, and note that all of it goes; say whether it was there."""
    revoke_keys(connection, app_id)
    begun = update(apps).where(apps.c.id == app_id, _KNOWN)
    return connection.execute(begun.values(deleting=True, updated_at=now_ms())).rowcount == 1


def being_deleted(connection: Connection, stale_ms: int) -> list[str]:
    """Return the apps whose deletion was begun, or gone on with, some time ago."""
    left = and_(text("deleting"), apps.c.updated_at <= now_ms() - stale_ms)
    return list(connection.scalars(select(apps.c.id).where(left).limit(_DELETED_AT_ONCE)))


def delete_app(connection: Connection, app_id: str) -> None:
    """Remove an app and its keys; no matter if it is gone already.

    The row stays, empty and unknown, for the workflows that callers' runs show.
    """
    connection.execute(delete(keys).where(keys.c.app_id == app_id))
    connection.execute(delete(idempotency).where(idempotency.c.app_id == app_id))
    gone = update(apps).where(apps.c.id == app_id, _KNOWN)
    values = {"deleting": False, "name": "", "settings": b"{}", "verified": False}
    if connection.execute(gone.values(**values)).rowcount:
        bump(connection, "", "", _COUNTED, "", -1)


def insert_key(
    connection: Connection,
    app_id: str,
    name: str,
    digest: bytes,
    read_only: bool = False,
    expires_at: int | None = None,
) -> str:
    """Add a key, which is stored as its digest; return its id.

    Raises:
        Conflict: the app has as many keys as it may have, and none of them is revoked.
    """
    mine = keys.c.app_id == app_id
    held = connection.execute(select(func.count()).select_from(keys).where(mine)).scalar_one()
    if held >= KEYS_MAX:
        oldest = (
            select(keys.c.id).where(mine, keys.c.revoked_at.is_not(None)).order_by(keys.c.id)
        ).limit(1)
        if not connection.execute(
            delete(keys).where(keys.c.id.in_(oldest.scalar_subquery()))
        ).rowcount:
            raise Conflict(f"This app has {KEYS_MAX:,} keys. Revoke those that are not used.")
    key_id = new_id("key")
    connection.execute(
        insert(keys).values(
            id=key_id,
            app_id=app_id,
            name=name,
            hash=digest,
            read_only=read_only,
            expires_at=expires_at,
            created_at=now_ms(),
        )
    )
    return key_id


def find_key(connection: Connection, app_id: str, key_id: str) -> Row[Any] | None:
    """Return a key of this app."""
    query = select(keys).where(keys.c.id == key_id, keys.c.app_id == app_id)
    return connection.execute(query).first()


def find_key_by_digest(connection: Connection, digest: bytes) -> Row[Any] | None:
    """Return the key that has this digest."""
    return connection.execute(select(keys).where(keys.c.hash == digest)).first()


def list_keys(
    connection: Connection, app_id: str, take: int, offset: int, before: str | None
) -> tuple[Sequence[Row[Any]], int]:
    """Return up to ``take`` keys of an app, newest first, and how many there are (a thousand)."""
    mine = keys.c.app_id == app_id
    query = select(keys).where(mine).order_by(keys.c.id.desc()).limit(take).offset(offset)
    if before is not None:
        query = query.where(keys.c.id < before)
    held = connection.execute(select(func.count()).select_from(keys).where(mine)).scalar_one()
    return connection.execute(query).all(), held


def revoke_keys(connection: Connection, app_id: str, key_id: str | None = None) -> None:
    """Revoke one key of an app, or all of them; those revoked before keep their time."""
    statement = update(keys).where(keys.c.app_id == app_id, keys.c.revoked_at.is_(None))
    if key_id is not None:
        statement = statement.where(keys.c.id == key_id)
    connection.execute(statement.values(revoked_at=now_ms()))


def touch_keys(connection: Connection, used: Mapping[str, int]) -> None:
    """Write when keys were last used; an earlier time never replaces a later one."""
    for key_id, at in used.items():
        earlier = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < at)
        connection.execute(update(keys).where(keys.c.id == key_id, earlier).values(last_used_at=at))
