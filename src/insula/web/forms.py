"""Forms as they arrive: texts in memory, file parts on disk, everything under a limit."""

import hashlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from insula.errors import BadInput, FieldError, TooLarge, UnsupportedMedia
from insula.web.incoming import Arriving

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
MEDIA_TYPES = (MULTIPART, URLENCODED)
OPEN_PARTS = "insula.open_parts"
"""Where the parts to be closed after the answer stand in a request's scope."""

FIELDS = 1000
FILES = 100
_FILENAME = 255
_PIECE = 1024 * 1024

# It warns of every form that is wrong, which the caller is told and the log must not fill with.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Bytes: of all text parts together, and of each file."""

    text: int
    file: int


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A file part; small ones in memory, others on disk. Open until the answer is sent."""

    filename: str
    content_type: str
    file: BinaryIO
    size: int

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "binary"}


@dataclass(slots=True)
class Form:
    """What a form held, in its order."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, UploadedPart]] = field(default_factory=list)

    def length(self) -> int:
        """Count the characters of its texts."""
        return sum(len(text) for _, text in self.texts)

    def fingerprint(self) -> bytes:
        """Digest the content; two sendings with other boundaries are equal."""
        digest = hashlib.sha256()
        for name, text in self.texts:
            digest.update(repr((name, text)).encode("utf-8", "surrogatepass"))
        for name, part in self.files:
            digest.update(repr((name, part.filename, part.size)).encode())
            while piece := part.file.read(_PIECE):
                digest.update(piece)
            part.file.seek(0)
        return digest.digest()


class _Parser(MultiPartParser):
    """Starlette's parser, with bounds on all texts together and on each file."""

    def __init__(
        self, request: Request, stream: AsyncGenerator[bytes, None], limits: FormLimits
    ) -> None:
        super().__init__(
            request.headers,
            self._watched(stream),
            max_files=FILES,
            max_fields=FIELDS,
            max_part_size=limits.text,
        )
        self._request = request
        self._limits = limits
        self._text = 0
        self._file = 0
        self._begun = False
        self._ended = False

    async def _watched(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in stream:
            self._begun = True
            yield piece

    @property
    def is_cut(self) -> bool:
        """Say whether the form broke off; the base takes what came until then for all of it."""
        return self._begun and not self._ended

    def close(self) -> None:
        """Close what the form has begun to bring: nobody will read it."""
        for file in self._files_to_close_on_error:
            file.close()

    def on_end(self) -> None:
        self._ended = True

    def on_part_begin(self) -> None:
        self._file = 0
        self._charset = "utf-8"  # the base would take any of Python's codecs from the header
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._text += end - start
            if self._text > self._limits.text:
                raise TooLarge(
                    f"The text parts are over {self._limits.text:,} bytes together. "
                    "Send large values as file parts."
                )
            self._request.app.state.room.take(self._request, end - start)
        else:
            self._file += end - start
            if self._file > self._limits.file:
                raise TooLarge(f"A file part is over {self._limits.file:,} bytes, the limit.")
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            self._current_part.data.decode("utf-8")  # where it cannot, the base would guess
        super().on_part_end()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The form is over {limit:,} bytes. Send each file first with POST "
        "/apps/{app_id}/files, or through an upload link, and then its id."
    )


async def _stream(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    arriving = Arriving(request.receive, request.app.state.settings.body_rate_min)
    size = 0
    while True:
        message = await arriving.piece()
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


async def read_multipart(request: Request, limits: FormLimits) -> Form:
    """Read a multipart form; its files are closed once the answer is sent.

    Raises:
        BadInput: it is not a well-formed form in UTF-8.
        TooLarge: over a limit, which is named.
    """
    _, options = parse_options_header(request.headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise UnsupportedMedia("A form must be in UTF-8.")
    limit = limits.text + limits.file
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    stream = _stream(request, limit)
    try:
        parser = _Parser(request, stream, limits)
        parsed = await _parsed(parser)
    except MultiPartException as error:
        raise bad_form(error.message.rstrip(".")) from error
    except ValueError as error:
        raise bad_form("a part is not text in UTF-8, or its header cannot be read") from error
    finally:
        await stream.aclose()
    form = Form()
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            part = _part(value)
            request.scope.setdefault(OPEN_PARTS, []).append(part.file)
            form.files.append((_text(name), part))
        else:
            form.texts.append((_text(name), _text(value)))
    if parser.is_cut:
        parser.close()
        raise bad_form("it ends before its closing boundary")
    return form


async def _parsed(parser: _Parser) -> FormData:
    try:
        return await parser.parse()
    except BaseException:  # the base closes its files on two kinds of error only
        parser.close()
        raise


def _part(upload: UploadFile) -> UploadedPart:
    name = (upload.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character for character in name if character.isprintable())
    return UploadedPart(
        kept[-_FILENAME:] or "file",
        (upload.content_type or "application/octet-stream")[:_FILENAME],
        upload.file,
        upload.size or 0,
    )


def parse_urlencoded(body: bytes) -> Form:
    """Parse an urlencoded form.

    Raises:
        BadInput: it is not UTF-8, or has more than 1,000 fields.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS
        )
    except ValueError as error:
        raise bad_form("it is not percent-encoded UTF-8 of at most 1,000 fields") from error
    return Form(texts=[(_text(name), _text(value)) for name, value in pairs])


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise bad_form("it holds text that is not UTF-8") from error
    return value


def bad_form(why: str) -> BadInput:
    """Make the 400 of a form that cannot be read."""
    return BadInput(f"The form cannot be read: {why}.", [FieldError((), "form", why)])
