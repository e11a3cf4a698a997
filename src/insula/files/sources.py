"""Where a file's bytes come from: a form part, text, an object, or a download."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

from insula.engine.ports import Activity, HttpRequest
from insula.errors import BadInput, FieldError
from insula.files.store import FileStore, Wanted
from insula.kit import percent
from insula.web.forms import UploadedPart

_DOWNLOAD_SECONDS = 300.0
_PIECE = 256 * 1024
_FORMS = (
    "a file id, an http or https address, a data URL, base64 text, "
    "or an object {data, type, name, encoding}"
)
_ENCODINGS = ("base64", "raw")
_DISPOSITION = re.compile(
    r"filename\*=utf-8''([^;\s]+)|filename=\"([^\"]+)\"|filename=([^;\s]+)", re.I
)


@asynccontextmanager
async def open_source(
    store: FileStore, value: object, wanted: Wanted
) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Open the bytes, with their name; a download lives as long as the block."""
    if is_address(value):
        request = HttpRequest(
            "GET",
            value,
            timeout=_DOWNLOAD_SECONDS,
            max_bytes=store.limit,
            app_id=wanted.app_id,
        )
        async with store.http.open(request, Activity("downloading a file", 0)) as answer:
            if not 200 <= answer.status < 300:
                raise bad_file(wanted, "download", f"cannot be downloaded: status {answer.status}")
            name = _name_of(answer.header("content-disposition"), answer.url)
            yield name or wanted.filename, answer.chunks
    elif isinstance(value, UploadedPart):
        yield value.filename, _part(value)
    else:
        name, data = await asyncio.to_thread(_inline, value, wanted)  # it may be a whole body
        yield name or wanted.filename, _once(data)


def is_address(value: object) -> TypeGuard[str]:
    """Say whether a file would be downloaded."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def _inline(value: object, wanted: Wanted) -> tuple[str, bytes]:
    """Read a file that stands in the value itself."""
    if isinstance(value, Mapping):
        return _from_object(value, wanted)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise bad_file(wanted, "file", f"must be {_FORMS}, not {kind}")
    if value[:5].lower() == "data:":
        return "", _data_url(value, wanted)
    return "", _base64(value, wanted)


def _from_object(value: Mapping[str, Any], wanted: Wanted) -> tuple[str, bytes]:
    data, name = value.get("data"), value.get("name") or ""
    if not isinstance(data, str):
        raise bad_file(wanted, "file", f"must be {_FORMS}; this object has no text in data")
    if not isinstance(name, str):
        raise bad_file(wanted, "file", "has a name that is not text")
    encoding = value.get("encoding")
    if encoding not in (None, *_ENCODINGS):
        raise bad_file(wanted, "file", f"has an encoding that is none of {', '.join(_ENCODINGS)}")
    if encoding == "raw":
        return name, data.encode("utf-8", "replace")
    if data[:5].lower() == "data:":
        return name, _data_url(data, wanted)
    return name, _base64(data, wanted)


def _data_url(url: str, wanted: Wanted) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise bad_file(wanted, "file", "is a data URL without its comma")
    return _base64(body, wanted) if head.endswith(";base64") else percent.unquote(body)


def _base64(text: str, wanted: Wanted) -> bytes:
    try:
        pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
        bare = "".join("".join(piece.split()) for piece in pieces)
        bare = bare.replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise bad_file(wanted, "file", f"is not valid base64; it must be {_FORMS}") from None


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


def bad_file(wanted: Wanted, code: str, message: str) -> BadInput:
    """Make the 400 of a file that cannot be used; names its field."""
    where = ".".join(wanted.path)
    return BadInput(f"{where} {message}.", [FieldError(wanted.path, code, message)])
