"""Server-sent events as bytes arrive: ``id``, ``event`` and JSON ``data``, comments dropped."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from insula.cli.failures import CommandFailed, ExitCode
from insula.kit.json import InvalidJson, decode

EVENT_LIMIT = 128 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: ``run``, ``step`` or ``chunk``, its id if it has one, and its decoded data."""

    name: str
    data: Any
    id: str | None = None


class _Block:
    """The lines of one event, gathered until the empty line that ends it."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.data: list[bytes] = []

    def add(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self.data.append(value)
        elif name in (b"event", b"id"):
            self.fields[name.decode()] = value

    def finish(self) -> ServerEvent | None:
        if not self.data:
            return None
        try:
            data = decode(b"\n".join(self.data))
        except InvalidJson as error:
            raise _broken(f"its data is not JSON ({error})") from error
        number = self.fields.get("id")
        name = self.fields.get("event", b"message").decode("utf-8", "replace")
        return ServerEvent(name, data, number.decode("utf-8", "replace") if number else None)


def _broken(why: str) -> CommandFailed:
    return CommandFailed(
        f"The server sent an event that cannot be read: {why}.", ExitCode.UNREACHABLE
    )


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        if b"\n" not in piece and b"\r" not in piece and len(rest) <= EVENT_LIMIT:
            continue
        # A carriage return at the very end may be the first half of a line end.
        held = b"\r" if rest.endswith(b"\r") else b""
        *complete, last = _LINE_END.split(bytes(rest[: len(rest) - len(held)]))
        rest = bytearray(last + held)
        if len(rest) > EVENT_LIMIT:
            raise _broken(f"a line is longer than {EVENT_LIMIT} bytes")
        for line in complete:
            yield line


async def read_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events of a response's body; an event that is cut off at the end is dropped.

    Raises:
        CommandFailed: a line is over its limit, or data is not JSON.
    """
    block = _Block()
    async for line in _lines(pieces):
        if line:
            block.add(line)
            continue
        event = block.finish()
        block = _Block()
        if event is not None:
            yield event
