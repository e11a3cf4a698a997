"""Storing a file: bytes first, durable; then its row; and removing both."""

import asyncio
import unicodedata
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy import Connection

from insula.adapters.blobs.port import Blobs
from insula.adapters.http.client import HttpClient
from insula.apps.repository import is_there
from insula.errors import BadInput, FieldError, InsulaError, NotFound, TooLarge, Unavailable
from insula.files import repository, uploads
from insula.files.repository import FileRow
from insula.files.sniffing import HEAD_BYTES, admits, sniff
from insula.files.urls import FileUrls
from insula.files.wish import Wish
from insula.kit.clock import DAY_MS, now_ms
from insula.kit.ids import new_id
from insula.kit.tasks import uninterrupted
from insula.storage.database import Database
from insula.web.auth import unknown

_log = structlog.get_logger(__name__)

TEMPORARY_MS = DAY_MS
_FILENAME_BYTES = 255
_NAME_MAX, _TAIL_MAX = 1000, 32
"""Characters of a name that are looked at: of its beginning, and of its end."""
_SWEEPS = 1000
_AWAY = 3
"""Failures in a row after which the storage counts as away: each may take its time."""


@dataclass(frozen=True, slots=True)
class FileStore:
    """Where files are kept, and the limit of their size in bytes."""

    database: Database
    blobs: Blobs
    urls: FileUrls
    http: HttpClient
    limit: int
    wished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there is something to extract."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a file is to be stored. ``path`` names the field in errors."""

    app_id: str
    filename: str = "file"
    storage: str = "PERSISTENT"
    visibility: str = "PRIVATE"
    run_id: str | None = None
    parent_id: str | None = None
    wish: Wish | None = None
    file_id: str | None = None
    """Its id, if it has been promised already."""
    still_ours: Callable[[Connection], None] | None = None
    """With a promised id: raises if another process has taken it over."""
    text_type: str | None = None
    """What kind of text it is, if it is text."""
    allowed_types: Sequence[str] | None = None
    path: tuple[str, ...] = ("file",)


Stop = Callable[[str], Awaitable[None]]

Also = Callable[[Connection, FileRow], str | None]
"""Done in the unit of the row's insertion; an id it returns stands instead of the new row."""


async def store_file(
    store: FileStore, wanted: Wanted, chunks: AsyncIterable[bytes], also: Also | None = None
) -> FileRow:
    """Store a stream of bytes and its row; return the row.

    Raises:
        BadInput: its type is not one of the allowed ones.
        TooLarge: it is over the limit.
        Unavailable: the disk is full.
        NotFound: the app was deleted meanwhile, or what stands instead of the new row.
    """
    file_id = wanted.file_id or new_id("file")
    filename = clean_filename(wanted.filename)
    head, whole = await _with_head(chunks)
    mimetype = sniff(head, filename)
    if wanted.text_type is not None and mimetype.startswith("text/"):
        mimetype = wanted.text_type
    if not admits(wanted.allowed_types, mimetype, filename):
        raise wrong_type(wanted, mimetype)
    # An id that was promised may be another process's by now, which has taken over: until it is
    # seen that it is not, these bytes stand for themselves.
    key = file_id if wanted.still_ours is None else new_id("file")
    size = await store.blobs.write(key, whole, store.limit)
    now = now_ms()
    row = FileRow(
        id=file_id,
        app_id=wanted.app_id,
        filename=filename,
        mimetype=mimetype,
        size=size,
        storage=wanted.storage,
        visibility=wanted.visibility,
        created_at=now,
        # What somebody holds stays with him; until it is seen that he is there, it may be lost.
        expires_at=now + TEMPORARY_MS if wanted.storage == "TEMPORARY" or wanted.run_id else None,
        run_id=wanted.run_id,
        parent_id=wanted.parent_id,
    )

    def unit(connection: Connection) -> FileRow:
        earlier = also(connection, row) if also is not None else None
        if earlier is not None:
            return made_before(connection, earlier, wanted.app_id)
        if not is_there(connection, wanted.app_id):
            raise unknown()  # deleted while the bytes came in
        repository.insert_file(connection, row, wanted.wish)
        return row

    try:
        # A cancel in the middle would leave it open whether there is a row for the bytes.
        stored = await uninterrupted(_insert(store, wanted, key, file_id, unit))
    except Exception:
        await uninterrupted(remove_bytes(store, [key]))
        raise
    if stored.id != file_id:
        await remove_bytes(store, [file_id])
    elif wanted.wish is not None:
        store.wished.set()
    return stored


def made_before(connection: Connection, file_id: str, app_id: str) -> FileRow:
    """Find what the same call made before; raise ``NotFound`` if that has been deleted since."""
    found = repository.find_file(connection, file_id, app_id)
    if found is None:
        raise NotFound(
            f"This made the file {file_id} before, which has been deleted since. "
            "Another Idempotency-Key makes another."
        )
    return found


async def _insert(
    store: FileStore,
    wanted: Wanted,
    key: str,
    file_id: str,
    unit: Callable[[Connection], FileRow],
) -> FileRow:
    """Insert the row of bytes that stand under a key; let them stand under its id before."""
    if wanted.still_ours is None:
        return await store.database.write(unit)
    await store.database.read(wanted.still_ours)
    # Where this fails further on, what stands there is another's, or nobody's: the sweep sees.
    await store.blobs.copy(key, file_id)
    stored = await store.database.write(unit)
    with suppress(Unavailable):  # the sweep takes them, too
        await store.blobs.delete(key)
    return stored


def too_large(limit: int) -> TooLarge:
    """Make the 413 of a file."""
    return TooLarge(f"The file has more than {limit:,} bytes (INSULA_FILE_MAX).")


def wrong_type(wanted: Wanted, mimetype: str) -> BadInput:
    """Make the 400 of a file whose type its field does not admit."""
    allowed = ", ".join(wanted.allowed_types or ())
    message = f"is {mimetype} by its content; allowed: {allowed[:500]}"
    where = ".".join(wanted.path)
    return BadInput(f"{where} {message}.", [FieldError(wanted.path, "file_type", message)])


async def _with_head(chunks: AsyncIterable[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """Read as much as sniffing needs; return it, and the whole stream with it in front."""
    head = bytearray()
    source = aiter(chunks)
    async for chunk in source:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for chunk in source:
            yield chunk

    return bytes(head[:HEAD_BYTES]), whole()


def clean_filename(name: str) -> str:
    """Return the last part of a path, printable, at most 255 bytes, with its extension."""
    name = name.replace("\\", "/").rpartition("/")[2]
    # Marks are put in order in a time that grows with their square.
    name = unicodedata.normalize("NFC", name[:_NAME_MAX] + name[_NAME_MAX:][-_TAIL_MAX:])
    name = "".join(c for c in name if c.isprintable() and not "\ud800" <= c <= "\udfff").strip(" .")
    if not name:
        return "file"
    stem, dot, tail = name.rpartition(".")
    suffix = dot + tail if stem and len(tail.encode()) <= 20 else ""
    body = name[: len(name) - len(suffix)].encode()
    return body[: _FILENAME_BYTES - len(suffix.encode())].decode(errors="ignore") + suffix


async def remove_file(store: FileStore, app_id: str, file_id: str) -> bool:
    """Remove a file of an app, row and bytes; say whether it was there."""
    gone = await store.database.write(
        lambda connection: repository.delete_file(connection, app_id, file_id)
    )
    await remove_bytes(store, gone)
    return bool(gone)


async def remove_bytes(store: FileStore, file_ids: Sequence[str]) -> bool:
    """Delete the bytes of files; say whether all are gone.

    What cannot be deleted is logged, and keeps nobody from the rest: of files whose rows are gone
    the sweep tries it again. Where the storage is away, the rest is left to that, too.
    """
    left, failed, reason = 0, 0, ""
    for number, file_id in enumerate(file_ids):
        try:
            await store.blobs.delete(file_id)
            failed = 0
        except (InsulaError, OSError) as error:
            left, failed, reason = left + 1, failed + 1, str(error)
        if failed == _AWAY:
            left += len(file_ids) - number - 1
            break
    if left:
        _log.warning("files.not_removed", files=left, reason=reason)
    return not left


async def remove_expired(store: FileStore) -> int:
    """Remove files whose time is over, a thousand at a time; return how many."""
    removed, seen = 0, _SWEEPS
    while seen == _SWEEPS:
        seen, gone = await store.database.write(
            lambda connection: repository.delete_expired(connection, now_ms(), _SWEEPS)
        )
        await remove_bytes(store, gone)
        removed += len(gone)
    return removed


async def remove_app_files(store: FileStore, app_id: str, stop: Stop) -> None:
    """Remove all files of an app that is being deleted; ``stop`` ends the reading of one.

    Their bytes go first, since nobody can ask for them any more: whoever goes on after a crash
    finds by the rows what is left to remove.

    Raises:
        Unavailable: some cannot be deleted for now; their rows are kept.
    """
    await store.database.write(lambda c: uploads.delete_app_uploads(c, app_id))
    while found := await store.database.read(
        lambda connection: repository.some_of_app(connection, app_id, _SWEEPS)
    ):
        for file_id in found:
            await stop(file_id)
        if not await remove_bytes(store, found):
            raise Unavailable("Files of the app cannot be deleted now; ask again", retry_after=5)
        gone = await store.database.write(partial(repository.delete_files, file_ids=found))
        await remove_bytes(store, [file_id for file_id in gone if file_id not in found])


async def sweep_orphans(store: FileStore, older_than: float = 3600.0) -> int:
    """Remove bytes that no row refers to: what a crash left between the two."""
    return await store.blobs.sweep(
        lambda ids: store.database.read(lambda connection: repository.known_files(connection, ids)),
        older_than,
    )
