"""Files in the messages of a *model* step: their text, their page images, themselves."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from insula.engine.context import StepContext
from insula.engine.failures import NoRoom, StepFailure
from insula.engine.ports import Aspect
from insula.engine.template import FileValue
from insula.kit import json

MESSAGE_BYTES = 64 * 1024 * 1024
"""Of all files and images in one conversation, as they are sent."""
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text of a message with files in it, which have yet to be read."""

    parts: Sequence[str | FileValue]


async def with_files(
    context: StepContext, messages: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """Read the files that stand in messages, and put what is asked of them in their places.

    Raises:
        StepFailure: ``input``, one cannot be read, stands where none can, or they are too much.
    """
    reading = _Reading(context)
    return tuple([await reading.message(message) for message in messages])


class _Reading:
    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._room = MESSAGE_BYTES

    async def message(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        content = message.get("content")
        if isinstance(content, Pieces):
            parts = await self._parts(content)
            texts = [part["text"] for part in parts if part["type"] == "text"]
            if len(texts) == len(parts):
                return {**message, "content": "".join(texts)}
            self._check_role(message)
            return {**message, "content": parts}
        if isinstance(content, list) and any(_waits(part) for part in content):
            return {**message, "content": await self._expanded(message, content)}
        return message

    async def _expanded(self, message: Mapping[str, Any], content: list[Any]) -> list[Any]:
        expanded: list[Any] = []
        for part in content:
            if not _waits(part):
                expanded.append(part)
                continue
            made = await self._parts(part["text"])
            if any(each["type"] != "text" for each in made):
                self._check_role(message)
            expanded += made
        return expanded

    def _check_role(self, message: Mapping[str, Any]) -> None:
        if message.get("role") != "user":
            raise StepFailure(
                f":images and :file can stand in user messages only, not in a message "
                f"whose role is {message.get('role')}",
                "input",
            )

    async def _parts(self, pieces: Pieces) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for piece in pieces.parts:
            made = [{"type": "text", "text": piece}] if isinstance(piece, str) else []
            if isinstance(piece, FileValue):
                made = await self._read(piece)
            for part in made:
                if part["type"] == "text" and parts and parts[-1]["type"] == "text":
                    parts[-1]["text"] += part["text"]
                elif part["type"] != "text" or part["text"]:
                    parts.append(part)
        return parts or [{"type": "text", "text": ""}]

    async def _read(self, wanted: FileValue) -> list[dict[str, Any]]:
        """Read one hole: a file, several, or none."""
        value = None if wanted.value is None else json.decode(wanted.value)
        if value is None or value in ("", []):
            return []
        files = value if isinstance(value, list) else [value]
        if wanted.suffix == "contents":
            self._take(len(_BETWEEN) * (len(files) - 1))
            texts = [await self._counted("text", file) for file in files]
            return [{"type": "text", "text": _BETWEEN.join(texts)}]
        parts = []
        for file in files:
            async for url in self._urls(wanted.suffix, file):
                kind = "image" if url.startswith("data:image/") else "file"
                parts.append({"type": kind, "url": url})
        return parts

    async def _urls(self, suffix: str, file: Any) -> AsyncIterator[str]:
        if suffix == "file":
            yield await self._counted("file", file)
            return
        images = await self._found("images", file, MESSAGE_BYTES)
        for image in json.decode(json.encode(images)):
            yield await self._counted("file", image)

    async def _counted(self, aspect: Aspect, file: Any) -> str:
        text = str(await self._found(aspect, file, self._room))
        self._take(len(text))
        return text

    async def _found(self, aspect: Aspect, file: Any, room: int) -> Any:
        try:
            return await self._context.read_file(aspect, file, room)
        except NoRoom:
            raise _too_much() from None

    def _take(self, characters: int) -> None:
        self._room -= characters
        if self._room < 0:
            raise _too_much()


def _too_much() -> StepFailure:
    return StepFailure(
        f"The files in the messages come to more than {MESSAGE_BYTES:,} bytes", "input"
    )


def _waits(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), Pieces)
