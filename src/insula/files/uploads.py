"""Upload links: whoever has one may send one file, without a key, until it expires."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from insula.files.repository import COUNTED
from insula.kit.clock import DAY_MS, now_ms
from insula.storage import dialect
from insula.storage.tables import nodes, uploads

KEPT_MS = 30 * DAY_MS
"""How long a link that expired unused is shown."""
_GRACE_MS = 1_000


class UploadOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a link admits, and what becomes of what is sent."""

    allowed_types: tuple[str, ...] | None = None
    contents: bool | None = None
    images: bool | None = None
    pages: tuple[int, ...] | None = None
    metadata: dict[str, Any] | None = None


class UploadRow(msgspec.Struct, frozen=True):
    """One link. Times are Unix milliseconds."""

    id: str
    app_id: str
    file_id: str
    storage: str
    visibility: str
    options: bytes
    used_at: int | None
    expires_at: int
    created_at: int
    updated_at: int

    @property
    def wanted(self) -> UploadOptions:
        """What stands in its options."""
        return _decode(self.options)


_decode = msgspec.json.Decoder(UploadOptions).decode
_encode = msgspec.json.Encoder().encode
_COLUMNS = [uploads.c[field] for field in UploadRow.__struct_fields__]


def encode_options(options: UploadOptions) -> bytes:
    """Return options as they are stored."""
    return _encode(options)


def insert_upload(connection: Connection, row: UploadRow) -> None:
    """Insert a link."""
    connection.execute(insert(uploads).values(msgspec.structs.asdict(row)))


def find_upload(
    connection: Connection, upload_id: str, app_id: str | None = None
) -> UploadRow | None:
    """Find a link; with ``app_id``, only if it is that app's."""
    query = select(*_COLUMNS).where(uploads.c.id == upload_id)
    if app_id is not None:
        query = query.where(uploads.c.app_id == app_id)
    return _first(connection, query)


def find_promise(connection: Connection, file_id: str) -> UploadRow | None:
    """Find the link through which this file is to come, or came."""
    return _first(connection, select(*_COLUMNS).where(uploads.c.file_id == file_id))


def list_uploads(
    connection: Connection, app_id: str, take: int, offset: int = 0, before: str | None = None
) -> tuple[list[UploadRow], int]:
    """List an app's links, newest first, with their number, counted up to ``COUNTED`` + 1."""
    query = select(*_COLUMNS).where(uploads.c.app_id == app_id).order_by(uploads.c.id.desc())
    if before is not None:
        query = query.where(uploads.c.id < before)
    rows = connection.execute(query.limit(take).offset(offset)).all()
    some = select(uploads.c.id).where(uploads.c.app_id == app_id).limit(COUNTED + 1).subquery()
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return [_row(row) for row in rows], count


def change_metadata(
    connection: Connection, app_id: str, upload_id: str, metadata: Mapping[str, Any] | None
) -> UploadRow | None:
    """Replace a link's metadata; return it, ``None`` if there is none."""
    row = find_upload(connection, upload_id, app_id)
    if row is None:
        return None
    kept = None if metadata is None else dict(metadata)
    options = encode_options(msgspec.structs.replace(row.wanted, metadata=kept))
    changed = update(uploads).where(uploads.c.id == upload_id)
    connection.execute(changed.values(options=options, updated_at=now_ms()))
    return find_upload(connection, upload_id, app_id)


def delete_upload(connection: Connection, app_id: str, upload_id: str) -> bool:
    """Delete a link; a file that came through it stays. Say whether it was there."""
    mine = (uploads.c.id == upload_id) & (uploads.c.app_id == app_id)
    return connection.execute(delete(uploads).where(mine)).rowcount > 0


def delete_app_uploads(connection: Connection, app_id: str) -> None:
    """Delete all links of an app."""
    connection.execute(delete(uploads).where(uploads.c.app_id == app_id))


def delete_old(connection: Connection, now: int, limit: int) -> int:
    """Delete up to ``limit`` links that expired long ago; return how many."""
    old = select(uploads.c.id).where(uploads.c.expires_at <= now - KEPT_MS).limit(limit)
    return connection.execute(delete(uploads).where(uploads.c.id.in_(old))).rowcount


def claim(connection: Connection, upload_id: str, token: str, *, ours_is_dead: bool) -> bool:
    """Reserve a link for one upload; say whether it was free.

    A claim of a process that has died counts no more, nor one of this process that it knows nothing
    of: ``ours_is_dead``.
    """
    now = dialect.now_ms(connection)
    alive = select(nodes.c.token).where(nodes.c.expires_at + _GRACE_MS > now)
    free: list[ColumnElement[bool]] = [
        uploads.c.claim.is_(None),
        (uploads.c.claim != token) & uploads.c.claim.not_in(alive),
    ]
    if ours_is_dead:
        free.append(uploads.c.claim == token)
    claimed = (
        update(uploads)
        .where(
            uploads.c.id == upload_id,
            uploads.c.used_at.is_(None),
            uploads.c.expires_at > now_ms(),
            or_(*free),
        )
        .values(claim=token)
    )
    return connection.execute(claimed).rowcount > 0


def release(connection: Connection, upload_id: str, token: str) -> None:
    """Give a link back that was not used."""
    mine = (uploads.c.id == upload_id) & (uploads.c.claim == token)
    connection.execute(update(uploads).where(mine).values(claim=None))


def holds(connection: Connection, upload_id: str, token: str) -> bool:
    """Say whether a link is still reserved by this process."""
    return connection.scalar(select(uploads.c.id).where(_mine(upload_id, token))) is not None


def use(connection: Connection, upload_id: str, token: str) -> bool:
    """Mark a link as used, in the unit that inserts its file; say whether it still was ours."""
    now = now_ms()
    used = (
        update(uploads)
        .where(_mine(upload_id, token))
        .values(claim=None, used_at=now, updated_at=now)
    )
    return connection.execute(used).rowcount > 0


def _mine(upload_id: str, token: str) -> ColumnElement[bool]:
    claimed = (uploads.c.id == upload_id) & (uploads.c.claim == token)
    return claimed & uploads.c.used_at.is_(None)


class Arriving:
    """The links through which files arrive in this process just now."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def __contains__(self, upload_id: str) -> bool:
        return upload_id in self._ids

    @contextmanager
    def through(self, upload_id: str) -> Iterator[None]:
        """Remember a link for the time of an upload."""
        self._ids.add(upload_id)
        try:
            yield
        finally:
            self._ids.discard(upload_id)


def _first(connection: Connection, query: Any) -> UploadRow | None:
    row = connection.execute(query).first()
    return None if row is None else _row(row)


def _row(row: Any) -> UploadRow:
    values = dict(zip(UploadRow.__struct_fields__, row, strict=True))
    return UploadRow(**{**values, "options": bytes(values["options"])})
