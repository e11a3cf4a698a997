"""Request bodies: read under a limit, checked before anyone believes them, turned into models."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from insula.errors import BadInput, FieldError, TooLarge, UnsupportedMedia
from insula.kit.json import InvalidJson, decode
from insula.kit.json_bounds import CONTAINERS, OverBounds, bound
from insula.web import bounds, form_values, forms
from insula.web.errors import field_errors, kind
from insula.web.fields import FORM, unstorable
from insula.web.idempotency import FINGERPRINT, has_key
from insula.web.incoming import Arriving, leave_room

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_LARGE = 64 * 1024
"""Bytes of a body that are gone through in passing. More of them would halt everybody else: they go
to a thread, which lets go of the interpreter between one pass and the next."""

_IN_JSON = {
    "dict_type": "Input should be an object",
    "list_type": "Input should be a valid array",
    "model_type": "Input should be an object",
}
"""The words where pydantic's are about Python, and name our classes."""


def too_large(limit: int) -> TooLarge:
    """Make the 413 of a JSON body, which names the ways for more."""
    return TooLarge(
        f"The body is over {limit:,} bytes. Send files as parts of multipart/form-data, or first "
        "with POST /apps/{app_id}/files, or through an upload link, and then by id."
    )


async def read_body(request: Request, limit: int) -> bytes:
    """Read the whole body, and leave its digest for an idempotency key.

    Raises:
        TooLarge: it has more than ``limit`` bytes; refused by its announced length if it has one.
        UnsupportedMedia: it is compressed.
        BadInput: it breaks off, or comes too slowly.
        Unavailable: others' bodies take all the memory.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMedia("Compressed bodies are not read here. Send it without encoding.")
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise too_large(limit)
    body = await _whole(request, limit)
    if has_key(request):
        digest = await _aside(len(body), partial(hashlib.sha256, body))
        request.scope[FINGERPRINT] = digest.digest()
    return body


async def _aside(size: int, work: Callable[[], T]) -> T:
    return work() if size <= _LARGE else await asyncio.to_thread(work)


async def _whole(request: Request, limit: int) -> bytes:
    arriving = Arriving(request.receive, request.app.state.settings.body_rate_min)
    body = bytearray()  # one piece for each chunk would take many times as much
    while True:
        message = await arriving.piece()
        piece: bytes = message.get("body", b"")
        if len(body) + len(piece) > limit:
            raise too_large(limit)
        request.app.state.room.take(request, len(piece))
        if not message.get("more_body", False):
            return bytes(body + piece) if body else piece
        body += piece


def check_json(text: bytes) -> Any:
    """Decode JSON text that a stranger sent.

    Raises:
        BadInput: it is not JSON in UTF-8, nests deeper than 200, or holds too many objects and
            lists; says where.
    """
    try:
        bound(text)
        return decode(text)
    except OverBounds as error:
        raise _not_json(str(error), error.code) from error
    except InvalidJson as error:
        words = str(error)
        where = "" if "byte" in words else f" (in {len(text):,} bytes)"
        raise _not_json(f"{words}{where}", "json") from error


def _checking_all() -> Callable[[bytes], Any]:
    """Return ``check_json`` for the texts of one form, which hold together no more objects and
    lists than one body may."""
    opened = 0

    def parse(text: bytes) -> Any:
        nonlocal opened
        opened += text.count(b"[") + text.count(b"{")
        if opened > CONTAINERS:
            words = f"the form holds more than {CONTAINERS:,} objects and lists"
            raise _not_json(words, "too_many")
        return check_json(text)

    return parse


def _not_json(why: str, code: str) -> BadInput:
    return BadInput(
        f"The body cannot be read as JSON: {why}.", [FieldError((), code, f"{why}", "body")]
    )


def _media_type(request: Request) -> str:
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            return bytes(value).split(b";", 1)[0].strip().lower().decode("latin-1")
    return ""


def is_form(request: Request) -> bool:
    """Say whether the body is a form: its values come as text."""
    return _media_type(request) in forms.MEDIA_TYPES


async def _read_json(request: Request) -> bytes:
    """Read a JSON body; an empty one is an empty object."""
    media_type = _media_type(request)
    body = await read_body(request, request.app.state.settings.body_max)
    if not body.strip():
        return b"{}"
    if media_type not in ("application/json", "") and not media_type.endswith("+json"):
        raise UnsupportedMedia(
            "The body's content type is not one that is read here. "
            "Send application/json or multipart/form-data."
        )
    return body


async def payload(request: Request, model: type[M]) -> M:
    """Read the body into a model, from JSON, ``multipart/form-data`` or an urlencoded form.

    JSON is taken strictly. In a form, objects and lists are JSON text, numbers and booleans text,
    a list may also be a repeated key, and file parts are ``UploadedPart``, open until the answer
    is sent; a part named ``input[a]`` or ``input.a`` stands at ``a`` inside ``input``.

    Raises:
        BadInput: one entry for each field that is wrong.
        TooLarge, UnsupportedMedia.
    """
    try:
        if is_form(request):
            form = await _read_form(request)
            return await _aside(form.length(), partial(_from_form, form, model))
        body = await _read_json(request)
        return await _aside(len(body), partial(_from_json, body, model))
    finally:
        leave_room(request.scope)


def _from_form(form: forms.Form, model: type[M]) -> M:
    value = form_values.values(form, model, _checking_all())
    return _checked([value], model, strict=False)[0]


def _from_json(body: bytes, model: type[M]) -> M:
    value = check_json(body)
    if not isinstance(value, dict):
        message = f"must be a JSON object, not {kind(value)}"
        raise BadInput(f"The body {message}.", [FieldError((), "object", message)])
    return _checked([value], model, strict=True)[0]


def _checked(values: list[Any], model: type[M], *, strict: bool, listed: bool = False) -> list[M]:
    bounds.bound(values, model)
    how: dict[str, Any] = {"strict": True} if strict else {"context": FORM}
    try:
        if not listed:
            return _stored([model.model_validate(values[0], **how)])
        adapter = TypeAdapter(list[model])  # type: ignore[valid-type]  # a model
        return _stored(adapter.validate_python(values, **how), listed=True)
    except ValidationError as error:
        raise invalid(error) from None


def _stored(bodies: list[M], listed: bool = False) -> list[M]:
    """Return the bodies, of which every text can be stored and looked for.

    Raises:
        BadInput: one cannot, on a database or another.
    """
    found = [
        FieldError((str(index), *path) if listed else path, "text", why)
        for index, body in enumerate(bodies)
        for path, why in unstorable(body)
    ]
    if found:
        first = f"{'.'.join(found[0].path)}: {found[0].message}"
        raise BadInput(f"The body is not valid: {first}.", found[:100])
    return bodies


async def payloads(request: Request, model: type[M], most: int = 1000) -> list[M]:
    """Read a body that is a list of what ``payload`` reads.

    In a form its entries are parts such as ``0[name]`` or ``[0].name``, or one part holds the whole
    list as JSON text.

    Raises:
        BadInput: one entry for each field that is wrong, or there are more than ``most``.
        TooLarge, UnsupportedMedia.
    """
    try:
        if is_form(request):
            form = await _read_form(request)
            parse = partial(form_values.entries, form, _checking_all())
            return await _aside(form.length(), partial(_list_of, model, most, parse, strict=False))
        body = await _read_json(request)
        parse = partial(check_json, body)
        return await _aside(len(body), partial(_list_of, model, most, parse, strict=True))
    finally:
        leave_room(request.scope)


def _list_of(model: type[M], most: int, parse: Callable[[], Any], *, strict: bool) -> list[M]:
    value = parse()
    if not isinstance(value, list):
        message = f"must be a JSON array, not {kind(value)}"
        raise BadInput(f"The body {message}.", [FieldError((), "list", message)])
    if len(value) > most:
        message = f"holds more than {most:,} entries"
        raise BadInput(f"The body {message}.", [FieldError((), "too_many", message)])
    return _checked(value, model, strict=strict, listed=True)


async def _read_form(request: Request) -> forms.Form:
    settings = request.app.state.settings
    if _media_type(request) == forms.URLENCODED:
        body = await read_body(request, settings.body_max)
        form = await _aside(len(body), partial(forms.parse_urlencoded, body))
    else:
        limits = forms.FormLimits(settings.body_max, settings.file_max)
        form = await forms.read_multipart(request, limits)
    if has_key(request):
        request.scope[FINGERPRINT] = await asyncio.to_thread(form.fingerprint)
    return form


def invalid(error: ValidationError) -> BadInput:
    """Turn pydantic's complaint about a body into the answer, one entry for each field."""
    problems = error.errors(include_url=False, include_context=False)
    for problem in problems[:100]:
        problem["msg"] = _IN_JSON.get(problem["type"], problem["msg"])
    errors = field_errors(problems)
    named = "; ".join(f"{'.'.join(entry.path) or 'body'}: {entry.message}" for entry in errors[:3])
    return BadInput(f"The body is not valid: {named}.", errors)
