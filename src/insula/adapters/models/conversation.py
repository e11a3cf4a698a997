"""Messages of the contract, turned into the model library's own. Loads the library: import late."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import filetype
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.messages import ModelRequest as Request

from insula.engine.failures import StepFailure
from insula.kit import percent
from insula.kit.json import encode

Message = Mapping[str, Any]
Download = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Fetches a URL: its bytes, and the media type it was said to have."""
AppsDownload = Callable[[str, str], Awaitable[tuple[bytes, str]]]
"""The same on behalf of an app, whose id comes first."""

_JSON_HINT = "Answer with one JSON value and nothing else."


async def convert(
    messages: Sequence[Message], json_answer: bool, download: Download
) -> list[ModelMessage]:
    """Convert a conversation. Neighbouring messages of one side become one.

    Raises:
        StepFailure: ``input``, naming the message; or what ``download`` raises.
    """
    converted: list[ModelMessage] = []
    if json_answer and b"json" not in encode(list(messages)).lower():
        # OpenAI refuses its JSON mode unless the conversation asks for JSON.
        converted.append(Request(parts=[SystemPromptPart(content=_JSON_HINT)]))
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if message.get("role") == "assistant":
            converted.append(ModelResponse(parts=_said(message, where)))
            continue
        parts = await _asked(message, where, download)
        if converted and isinstance(last := converted[-1], Request):
            last.parts = [*last.parts, *parts]
        else:
            converted.append(Request(parts=parts))
    return converted


async def _asked(message: Message, where: str, download: Download) -> list[ModelRequestPart]:
    role, content = message.get("role"), message.get("content", "")
    if role == "system":
        return [SystemPromptPart(content=_text(content, where))]
    if role == "user":
        if isinstance(content, str):
            return [UserPromptPart(content=content)]
        parts = [
            await _content(part, f"{where}.content[{at}]", download)
            for at, part in enumerate(_list(content, f"{where}.content"))
        ]
        return [UserPromptPart(content=parts)]
    if role == "tool":
        return [
            ToolReturnPart(
                tool_name=str(part.get("name", "")),
                content=part.get("output", ""),
                tool_call_id=str(part.get("id", "")),
            )
            for part in _list(content, f"{where}.content")
        ]
    raise StepFailure(
        f"{where}.role must be system, user, assistant or tool, not {role!r}", "input"
    )


def _said(message: Message, where: str) -> list[ModelResponsePart]:
    parts: list[ModelResponsePart] = []
    if text := _text(message.get("content", ""), where):
        parts.append(TextPart(content=text))
    for call in _list(message.get("tools") or [], f"{where}.tools"):
        given = call.get("input", {})
        arguments = given if isinstance(given, dict | str) else encode(given).decode()
        parts.append(
            ToolCallPart(
                tool_name=str(call.get("name", "")),
                args=arguments,
                tool_call_id=str(call.get("id", "")),
            )
        )
    return parts


def _list(value: object, where: str) -> list[Message]:
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise StepFailure(f"{where} must be a list of objects", "input")
    return value


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in _list(content, f"{where}.content"))


async def _content(part: Message, where: str, download: Download) -> UserContent:
    kind, url = part.get("type"), part.get("url")
    if kind == "text":
        return str(part.get("text", ""))
    if kind not in ("image", "file") or not isinstance(url, str):
        raise StepFailure(f"{where} must be text, or an image or a file with its url", "input")
    if url.startswith("data:"):
        data, media_type = await asyncio.to_thread(_read_data_url, url, where)
    elif kind == "image":
        return ImageUrl(url=url)  # the provider fetches it
    else:
        data, media_type = await download(url)
    sniffed = filetype.guess_mime(data)
    return BinaryContent(data=data, media_type=sniffed or media_type)


def _read_data_url(url: str, where: str) -> tuple[bytes, str]:
    """Take a ``data:`` URL apart. Raises ``StepFailure`` with code ``input``."""
    head, comma, body = url[len("data:") :].partition(",")
    media_type, _, _ = head.partition(";")
    if not comma:
        raise StepFailure(f"{where}.url is a data URL without its comma", "input")
    if not head.endswith(";base64"):
        return percent.unquote(body), media_type or "text/plain"
    try:
        return base64.b64decode(body, validate=True), media_type or "application/octet-stream"
    except (binascii.Error, ValueError):
        raise StepFailure(f"{where}.url is a data URL whose base64 is broken", "input") from None
