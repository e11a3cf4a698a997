"""A file in any form an input may have, turned into a stored file's object."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from pydantic import BaseModel

from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest
from insula.errors import BadInput, FieldError
from insula.files.repository import FileRow, find_file
from insula.files.schemas import file_wire
from insula.files.sniffing import admits
from insula.files.store import Also, FileStore, Wanted, store_file, too_large, wrong_type
from insula.kit.ids import is_id
from insula.web.forms import UploadedPart

_DOWNLOAD_SECONDS = 300.0
_PIECE = 256 * 1024
_FORMS = (
    "a file id, an http or https address, a data URL, base64 text, "
    "or an object {data, type, name, encoding}"
)
_DISPOSITION = re.compile(
    r"filename\*=utf-8''([^;\s]+)|filename=\"([^\"]+)\"|filename=([^;\s]+)", re.I
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A stored file's object; ``stored_id`` if it was stored just now (``claim_for_run``)."""

    value: dict[str, Any]
    stored_id: str | None = None


async def resolve_file(
    store: FileStore, value: object, wanted: Wanted, also: Also | None = None
) -> Resolved:
    """Turn a slot's value into a stored file's object.

    A file id, an object that holds one, or an address of this installation names a file that the
    app has; anything else is stored as ``wanted`` says.

    Raises:
        BadInput: it is no file, not this app's, of another type, or cannot be downloaded.
        TooLarge: it is over the limit.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if (file_id := _id_in(value)) is not None:
        return await _existing(store, file_id, wanted)
    if isinstance(value, str) and (ours := store.urls.read(value)) is not None:
        return await _ours(store, *ours, wanted, also)
    try:
        async with _source(store, value, wanted) as (name, chunks):
            row = await store_file(store, replace(wanted, filename=name), chunks, also)
    except StepFailure as failure:
        if failure.code == "limit_output":
            raise too_large(store.limit) from None
        raise _bad(wanted, "download", f"cannot be downloaded: {failure.message}") from None
    return Resolved(file_wire(row, store.urls), row.id)


def _id_in(value: object) -> str | None:
    if isinstance(value, Mapping) and "data" not in value:
        value = value.get("file_id") or value.get("id")
    if isinstance(value, str) and (is_id("file", value) or is_id("upl", value)):
        return value
    return None


async def _find(store: FileStore, file_id: str) -> FileRow | None:
    return await store.database.read(lambda connection: find_file(connection, file_id))


async def _existing(store: FileStore, file_id: str, wanted: Wanted) -> Resolved:
    if is_id("upl", file_id):
        raise _bad(wanted, "not_available", "is an upload link: those are not available yet")
    row = await _find(store, file_id)
    if row is None or row.app_id != wanted.app_id:
        raise _bad(wanted, "file", f"names {file_id}, which is no file of this app")
    if not admits(wanted.allowed_types, row.mimetype, row.filename):
        raise wrong_type(wanted, row.mimetype)
    return Resolved(file_wire(row, store.urls))


async def _ours(
    store: FileStore, file_id: str, good: bool, wanted: Wanted, also: Also | None
) -> Resolved:
    """Take an address of this installation without going over the network."""
    row = await _find(store, file_id)
    foreign = row is not None and row.app_id != wanted.app_id
    if row is None or (foreign and not good and row.visibility != "PUBLIC"):
        raise _bad(wanted, "file", "is an address of no file of this app, or one that has expired")
    if not foreign:
        return await _existing(store, file_id, wanted)
    chunks = store.blobs.open_stream(row.id)
    copy = await store_file(store, replace(wanted, filename=row.filename), chunks, also)
    return Resolved(file_wire(copy, store.urls), copy.id)


@asynccontextmanager
async def _source(
    store: FileStore, value: object, wanted: Wanted
) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Open the bytes, with their name; a download lives as long as the block."""
    if isinstance(value, str) and value[:8].lower().startswith(("http://", "https://")):
        request = HttpRequest("GET", value, timeout=_DOWNLOAD_SECONDS, max_bytes=store.limit)
        async with store.http.open(request, Activity("downloading a file", 0)) as answer:
            if not 200 <= answer.status < 300:
                raise _bad(wanted, "download", f"cannot be downloaded: status {answer.status}")
            name = _name_of(answer.header("content-disposition"), answer.url)
            yield name or wanted.filename, answer.chunks
    elif isinstance(value, UploadedPart):
        yield value.filename, _part(value)
    else:
        name, data = _inline(value, wanted)
        yield name or wanted.filename, _once(data)


def _inline(value: object, wanted: Wanted) -> tuple[str, bytes]:
    """Read a file that stands in the value itself."""
    if isinstance(value, Mapping):
        return _from_object(value, wanted)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise _bad(wanted, "file", f"must be {_FORMS}, not {kind}")
    if value[:5].lower() == "data:":
        return "", _data_url(value, wanted)
    return "", _base64(value, wanted)


def _from_object(value: Mapping[str, Any], wanted: Wanted) -> tuple[str, bytes]:
    data, name = value.get("data"), value.get("name") or ""
    if not isinstance(data, str):
        raise _bad(wanted, "file", f"must be {_FORMS}; this object has no text in data")
    if not isinstance(name, str):
        raise _bad(wanted, "file", "has a name that is not text")
    if value.get("encoding") == "raw":
        return name, data.encode("utf-8", "replace")
    if data[:5].lower() == "data:":
        return name, _data_url(data, wanted)
    return name, _base64(data, wanted)


def _data_url(url: str, wanted: Wanted) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise _bad(wanted, "file", "is a data URL without its comma")
    return _base64(body, wanted) if head.endswith(";base64") else unquote_to_bytes(body)


def _base64(text: str, wanted: Wanted) -> bytes:
    try:
        bare = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _bad(wanted, "file", f"is not valid base64; it must be {_FORMS}") from None


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _part(part: UploadedPart) -> AsyncIterator[bytes]:
    part.file.seek(0)
    while piece := await asyncio.to_thread(part.file.read, _PIECE):
        yield piece


def _name_of(disposition: str, url: str) -> str:
    """Name a download by its header, or by its address."""
    if (found := _DISPOSITION.search(disposition)) is not None:
        return unquote(found[1]) if found[1] else str(found[2] or found[3])
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _bad(wanted: Wanted, code: str, message: str) -> BadInput:
    where = ".".join(wanted.path)
    return BadInput(f"{where} {message}.", [FieldError(wanted.path, code, message)])
