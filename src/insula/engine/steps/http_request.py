"""*http_request*: one request; any answer completes the step, no answer fails it."""

import asyncio
import codecs
from collections.abc import Sequence

from insula.engine.context import Result, StepContext
from insula.engine.document import HttpRequestStep
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest, HttpResponse
from insula.engine.render import Renderer, Slot
from insula.engine.template import Kind
from insula.kit import json
from insula.kit.json import Raw
from insula.kit.json_bounds import check

Headers = tuple[tuple[str, str], ...]

_AT_ONCE = 256 * 1024
"""Bytes of a body that are put into shape beside everything else; more are in a thread."""


async def run(context: StepContext) -> Result:
    """Fill the settings in, send, and return ``{ok, status, headers, body}``."""
    response = await context.fetch(await _request(context))
    if len(response.body) <= _AT_ONCE:
        return Result(_output(response))
    return Result(await asyncio.to_thread(_output, response))


def _output(response: HttpResponse) -> Raw:
    return json.raw(answer(response))


async def _request(context: StepContext) -> HttpRequest:
    step = context.step
    assert isinstance(step, HttpRequestStep)
    renderer = context.renderer()
    url = renderer.text(step.url, "url")
    headers = _take_headers(renderer, step.headers)
    body = None if not step.body else renderer.text(step.body, _body_kind(step.body))
    await renderer.evaluate()
    sent = None if body is None else _utf8(_body_text(renderer, body))
    named = _headers(renderer, headers)
    if sent and not _names_type(named) and await _is_json(sent):
        named = (*named, ("content-type", "application/json"))
    return HttpRequest(
        method=step.method,
        url=renderer.filled_text(url).strip(),
        headers=named,
        body=sent,
        timeout=context.timeout(context.ports.timeouts.http_request),
    )


def _body_kind(body: str) -> Kind:
    start = body.lstrip()[:2]
    return "json" if start[:1] in ("{", "[") and start != "{{" else "text"


def _body_text(renderer: Renderer, slot: Slot) -> str:
    """Return the body; one hole that is no text goes as JSON, one that leads nowhere is empty."""
    if not slot.template.single:
        return renderer.filled_text(slot)
    value = bytes(renderer.filled_value(slot)).strip()
    if value.startswith(b'"'):
        text: str = json.decode(value)
        return text
    return "" if value == b"null" else value.decode()


def _take_headers(
    renderer: Renderer, headers: str | dict[str, str] | None
) -> Slot | list[tuple[str, Slot]]:
    if isinstance(headers, str):
        return renderer.text(headers, "json")
    return [(name, renderer.text(value, "header")) for name, value in (headers or {}).items()]


def _headers(renderer: Renderer, taken: Slot | list[tuple[str, Slot]]) -> Headers:
    if isinstance(taken, list):
        return tuple((name, renderer.filled_text(slot)) for name, slot in taken)
    text = renderer.filled_text(taken).strip()
    if not text:
        return ()
    try:
        named = json.decode(text)
    except json.InvalidJson as error:
        raise StepFailure("headers is text but not a JSON object", "input") from error
    if named is None:  # a path that leads nowhere
        return ()
    if not isinstance(named, dict):
        raise StepFailure("headers must be an object of texts", "input")
    for name, value in named.items():
        if not isinstance(value, str | int | float | bool):
            raise StepFailure(f"header {name!r} must be a text", "input")
    return tuple((name, _plain(value)) for name, value in named.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.encode(value).decode()


def _names_type(headers: Headers) -> bool:
    return any(name.lower() == "content-type" for name, _ in headers)


async def _is_json(body: bytes) -> bool:
    return _reads(body) if len(body) <= _AT_ONCE else await asyncio.to_thread(_reads, body)


def _reads(body: bytes) -> bool:
    try:
        check(body)
    except json.InvalidJson:
        return False
    return True


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StepFailure("body holds half of a surrogate pair", "input") from error


def answer(response: HttpResponse) -> dict[str, object]:
    """Put a response into the shape of a step's output: JSON is parsed, other bodies are text."""
    return {
        "ok": 200 <= response.status < 300,
        "status": response.status,
        "headers": _joined(response.headers),
        "body": _parsed(response),
    }


def _joined(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def _parsed(response: HttpResponse) -> object:
    kind = next((v for n, v in response.headers if n.lower() == "content-type"), "")
    if "json" in kind.lower() and response.body:
        body = response.body.removeprefix(codecs.BOM_UTF8).strip()
        try:
            check(body)  # and build nothing: it is carried along as it came
        except json.InvalidJson:
            return body.decode("utf-8", "replace")
        return Raw(body)
    return response.body.decode(_charset(kind), "replace")


def _charset(content_type: str) -> str:
    _, _, given = content_type.lower().partition("charset=")
    name = given.split(";")[0].strip().strip('"')
    return name if name in ("iso-8859-1", "latin-1", "windows-1252", "us-ascii") else "utf-8"
