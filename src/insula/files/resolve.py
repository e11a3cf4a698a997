"""A file in any form an input may have, turned into a stored file's object."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from pydantic import BaseModel
from sqlalchemy import Connection

from insula.adapters.blobs.port import Blobs
from insula.adapters.extraction.extractor import ExtractionLimits, Extractor
from insula.adapters.extraction.kinds import PAGED, kind_of
from insula.adapters.http.client import HttpClient
from insula.engine.failures import StepFailure, plain
from insula.engine.inputs import FileSlot
from insula.errors import BadInput, FieldError
from insula.files import extractions, uploads
from insula.files.documents import Documents
from insula.files.extractions import ExtractionRow
from insula.files.repository import FileRow, delete_run_files, find_file
from insula.files.schemas import file_wire
from insula.files.sniffing import admits
from insula.files.sources import bad_file, is_address, open_source
from insula.files.store import (
    Also,
    FileStore,
    Wanted,
    made_before,
    remove_bytes,
    remove_expired,
    store_file,
    sweep_orphans,
    too_large,
    wrong_type,
)
from insula.files.uploads import UploadRow
from insula.files.urls import FileUrls, signing_key
from insula.files.wish import Wish
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import is_id
from insula.settings import Settings
from insula.storage.database import Database
from insula.web.auth import unknown

_log = structlog.get_logger(__name__)
_LINKS_AT_ONCE = 1000
_PREFIXES = ("file_", "upl_")
_SHOWN = 100
FILES_MAX = 1_000
"""Files in one input."""
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # to be replaced, not to listen on


async def resolve_file(
    store: FileStore,
    value: object,
    wanted: Wanted,
    also: Also | None = None,
    *,
    stored: bool = True,
) -> dict[str, Any]:
    """Turn a slot's value into a stored file's object.

    A file id, an object that holds one, or an address of this installation names a file that the
    app has; anything else is stored as ``wanted`` says. A text that begins as ids do is one, though
    it might be base64: of a mistyped id no file is made. Without ``stored`` whoever sends it has no
    key: of a file that is stored already a copy is made, where its address would give it anyhow.

    Raises:
        BadInput: it is no file, not this app's, of another type, or cannot be downloaded.
        TooLarge: it is over the limit.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if (file_id := file_id_in(value)) is not None:
        if not stored:
            raise bad_file(wanted, "file", "names a stored file, which takes a key; send its bytes")
        return await _existing(store, file_id, wanted)
    if isinstance(value, str) and value.startswith(_PREFIXES):
        raise _no_file(wanted, plain(value, _SHOWN))
    if isinstance(value, str) and (ours := store.urls.read(value)) is not None:
        return await _ours(store, *ours, wanted, also, stored=stored)
    try:
        async with open_source(store, value, wanted) as (name, chunks):
            row = await store_file(store, replace(wanted, filename=name), chunks, also)
    except StepFailure as failure:
        if failure.code == "limit_output":
            raise too_large(store.limit) from None
        raise bad_file(wanted, "download", f"cannot be downloaded: {failure.message}") from None
    return await _shown(store, row)


async def shown_again(store: FileStore, app_id: str, file_id: str) -> dict[str, Any]:
    """Show a file as its making does, for a repeat of that.

    Raises:
        NotFound: it has been deleted since.
    """
    find = partial(made_before, file_id=file_id, app_id=app_id)
    return await _shown(store, await store.database.read(find))


async def shown_file(store: FileStore, app_id: str, file_id: str) -> bytes:
    """Show a file of an app, and what was found in it, as JSON: that may be large, and is encoded
    where it is read.

    Raises:
        NotFound: there is none.
    """

    def query(connection: Connection) -> bytes | None:
        row = find_file(connection, file_id, app_id)
        if row is None:
            return None
        extraction = extractions.find(connection, file_id)
        document = None
        if extraction is not None and extraction.status == "PROCESSED":
            document = _chosen(row, extraction, extractions.find_document(connection, file_id))
        return json.encode(file_wire(row, store.urls, extraction, document))

    shown = await store.database.read(query)
    if shown is None:
        raise unknown()
    return shown


def _chosen(
    row: FileRow, extraction: ExtractionRow, document: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return what was found on the pages that were chosen, where more of them were read."""
    wish, kind = extraction.wish, kind_of(row.mimetype)
    if document is None or not wish.whole or kind not in PAGED:
        return document
    parts = ("contents", "images") if kind == "pdf" else ("contents",)
    shown = wish.shown()
    seen = {part: [each for each in document[part] if shown(each["page"])] for part in parts}
    if wish.pages is not None:
        place = {page: number for number, page in enumerate(wish.pages)}
        for part in parts:
            seen[part].sort(key=lambda each: place[each["page"]])
    return {**document, **seen}


async def _shown(store: FileStore, row: FileRow) -> dict[str, Any]:
    find = partial(extractions.find, file_id=row.id)
    return file_wire(row, store.urls, await store.database.read(find))


def check_number(slots: Sequence[FileSlot], path: tuple[str, ...]) -> None:
    """Check that an input holds no more files than one may, before the first of them is stored.

    Raises:
        BadInput: it does; names ``path``.
    """
    if len(slots) > FILES_MAX:
        message = f"holds {len(slots):,} files, and may hold {FILES_MAX:,}"
        where = ".".join(path)
        raise BadInput(f"{where} {message}.", [FieldError(path, "too_many", message)])


def file_id_in(value: object) -> str | None:
    """Return the id of a file, or of its upload link, that a value is or holds."""
    if isinstance(value, Mapping) and "data" not in value:
        value = value.get("file_id") or value.get("future_file_id") or value.get("id")
    if isinstance(value, str) and (is_id("file", value) or is_id("upl", value)):
        return value
    return None


async def _find(store: FileStore, file_id: str) -> FileRow | None:
    return await store.database.read(lambda connection: find_file(connection, file_id))


async def _existing(store: FileStore, file_id: str, wanted: Wanted) -> dict[str, Any]:
    """Take a file that the app has; what is wished of it is extracted, if it was not already."""
    find = partial(_named, app_id=wanted.app_id, name=file_id)
    row, promise = await store.database.read(find)
    if row is None and promise is not None and promise.used_at is None:
        message = "is still to come: nothing has been sent through its upload link"
        raise bad_file(wanted, "not_uploaded", message)
    if row is None:
        raise _no_file(wanted, file_id)
    if not admits(wanted.allowed_types, row.mimetype, row.filename):
        raise wrong_type(wanted, row.mimetype)
    if wanted.wish is not None and wanted.wish.anything:
        ensure = partial(
            extractions.ensure,
            file_id=row.id,
            app_id=row.app_id,
            mimetype=row.mimetype,
            wish=wanted.wish,
        )
        if await store.database.write(ensure) is None:  # deleted meanwhile
            raise _no_file(wanted, file_id)
        store.wished.set()
    return await _shown(store, row)


def _no_file(wanted: Wanted, file_id: str) -> BadInput:
    return bad_file(wanted, "file", f"names {file_id}, which is no file of this app")


def _named(
    connection: Connection, app_id: str, name: str
) -> tuple[FileRow | None, UploadRow | None]:
    """Find a file by its id, or by the link through which it came; or the link that promises it."""
    promise = uploads.find_upload(connection, name, app_id)
    row = find_file(connection, name if promise is None else promise.file_id, app_id)
    if row is None and promise is None:
        promise = uploads.find_promise(connection, name)
        promise = promise if promise is not None and promise.app_id == app_id else None
    return row, promise


async def _ours(
    store: FileStore, file_id: str, good: bool, wanted: Wanted, also: Also | None, *, stored: bool
) -> dict[str, Any]:
    """Take an address of this installation without going over the network."""
    row = await _find(store, file_id)
    if row is not None and stored and row.app_id == wanted.app_id:
        return await _existing(store, file_id, wanted)
    if row is None or not (good or row.visibility == "PUBLIC"):
        raise bad_file(
            wanted, "file", "is an address of no file of this app, or one that has expired"
        )
    chunks = store.blobs.open_stream(row.id)
    copy = await store_file(store, replace(wanted, filename=row.filename), chunks, also)
    return await _shown(store, copy)


async def _copied(
    store: FileStore, value: object, wanted: Wanted, owner_app_id: str
) -> dict[str, Any]:
    """Take a file with the rights of one app, and store it for another, which sees no more of it.

    Raises:
        BadInput, TooLarge: as ``resolve_file``.
    """
    name = file_id_in(value)
    if name is None and isinstance(value, str) and (ours := store.urls.read(value)) is not None:
        name = ours[0]
    if name is None:  # its bytes, or an address elsewhere
        return await resolve_file(store, value, wanted)
    find = partial(_named, app_id=owner_app_id, name=name)
    row, _ = await store.database.read(find)
    if row is None:
        raise bad_file(wanted, "file", f"names {name}, which is no file of the workflow's app")
    if not admits(wanted.allowed_types, row.mimetype, row.filename):
        raise wrong_type(wanted, row.mimetype)
    chunks = store.blobs.open_stream(row.id)
    return await _shown(
        store, await store_file(store, replace(wanted, filename=row.filename), chunks)
    )


class FileInputs:
    """What runs, and the application, ask of the files."""

    def __init__(self, store: FileStore, documents: Documents, token: Callable[[], str]) -> None:
        self.store = store
        self.documents = documents
        self.token = token

    @classmethod
    async def open(
        cls,
        database: Database,
        blobs: Blobs,
        http: HttpClient,
        settings: Settings,
        token: Callable[[], str] = str,
    ) -> "FileInputs":
        """Read the signing key, or make it. ``token`` gives this process's, for its leases.

        Without INSULA_PUBLIC_URL, addresses name the port that is listened on; where that is found
        late, set ``store.urls.base``.
        """
        key = await database.write(signing_key)
        base = settings.public_url or base_url(settings.host, settings.port)
        store = FileStore(database, blobs, FileUrls(base, key), http, settings.file_max)
        limits = ExtractionLimits(
            seconds=settings.extract_seconds,
            memory=settings.extract_memory,
            output=settings.extract_output,
            pages=settings.extract_pages,
        )
        extractor = Extractor(limits, settings.extract_max)
        return cls(store, Documents(store, extractor, token, settings.extract_max), token)

    async def resolve(
        self,
        app_id: str,
        run_id: str,
        slot: FileSlot,
        workflow_app_id: str | None = None,
        *,
        keyless: bool = False,
    ) -> dict[str, Any]:
        """Store what stands in a slot, as long as the run's data is kept; return its object.

        What the workflow is configured with is its app's: a run of another app gets a copy. With
        ``keyless`` whoever sends the rest has no key, and names no file that is stored.

        Raises:
            BadInput: it is no file, or not of an allowed type; names the field.
            TooLarge: it is over the limit.
        """
        wanted = Wanted(
            app_id=app_id,
            run_id=run_id,
            storage="TEMPORARY",
            visibility=slot.field.visibility or "PRIVATE",
            allowed_types=slot.field.allowed_types,
            wish=Wish(
                bool(slot.field.extract_contents), bool(slot.field.extract_images), whole=True
            ),
            path=_path(slot),
        )
        if not slot.configured or workflow_app_id in (None, app_id):
            stored = slot.configured or not keyless
            return await resolve_file(self.store, slot.value, wanted, stored=stored)
        try:
            return await _copied(self.store, slot.value, wanted, workflow_app_id or app_id)
        except BadInput as error:  # its words may tell of the other app's files
            _log.warning("files.configured", app_id=workflow_app_id, reason=error.message)
            message = "is configured by the workflow with a file that cannot be used"
            raise bad_file(wanted, "configured", message) from None

    def check_at_hand(self, slots: Sequence[FileSlot]) -> None:
        """Check that no file of an input would have to be downloaded.

        Raises:
            BadInput: one would; names its field.
        """
        for slot in slots:
            if is_address(slot.value) and self.store.urls.read(slot.value) is None:
                wanted = Wanted("", path=_path(slot))
                message = "is an address elsewhere, and nothing is downloaded here: store the file"
                raise bad_file(wanted, "not_available", f"{message}, and name its id")

    async def discard(self, run_id: str) -> None:
        """Remove what was stored for a run that did not come to be."""
        unit = partial(delete_run_files, run_ids=[run_id])
        await self.remove(await self.store.database.write(unit))

    async def remove(self, file_ids: Sequence[str]) -> None:
        """Delete the bytes of files whose rows are gone (``repository.delete_run_files``)."""
        await remove_bytes(self.store, file_ids)

    async def sweep(self) -> int:
        """Remove what has expired and what a crash left; return how many. For every hour."""
        old = partial(uploads.delete_old, now=now_ms(), limit=_LINKS_AT_ONCE)
        while await self.store.database.write(old) == _LINKS_AT_ONCE:
            pass
        return await remove_expired(self.store) + await sweep_orphans(self.store)


def _path(slot: FileSlot) -> tuple[str, ...]:
    return ("input", *(str(part) for part in slot.path))


def base_url(host: str, port: int) -> str:
    """Return where a server that listens there is reached from this machine."""
    if host in _EVERYWHERE:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
