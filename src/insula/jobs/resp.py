"""The protocol of Redis (RESP3), as far as nodes speak it: commands out, replies and pushes in."""

import asyncio
from dataclasses import dataclass

from insula.jobs.signals import MESSAGE_MAX

BULK_MAX = MESSAGE_MAX + 1024
"""Bytes of a string that are kept. Of a longer one the rest is read and dropped, so that it is too
long for whoever hears it, and harms nothing else: anyone may have published it."""
_BULK_LENGTH_MAX = 999_999_999
_DROPPED_AT_ONCE = 64 * 1024
ITEMS_MAX = 1024
_DEPTH_MAX = 8
_LINES = b"+:_#,("
_BULKS = b"$=!"
_AGGREGATES = b"*>%~"


class NotResp(Exception):
    """What came is no reply of Redis, or none that was asked for."""


@dataclass(frozen=True, slots=True)
class Push:
    """What the server says unasked, such as a message of a channel."""

    parts: list[object]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error instead of a reply; the words may repeat what was sent."""

    words: str

    @property
    def code(self) -> str:
        """The first word, which names the kind of error."""
        return self.words.partition(" ")[0][:40]


def packed(*parts: bytes) -> bytes:
    """Return a command as it is sent."""
    framed = (b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"*%d\r\n%b" % (len(parts), b"".join(framed))


async def read(reader: asyncio.StreamReader, depth: int = 0) -> object:
    """Read one reply: bytes of whatever is simple, ``None``, a list, ``Push`` or ``Refusal``.

    Raises:
        NotResp: what came is none.
        EOFError, OSError: the connection is gone.
    """
    try:
        line = await reader.readuntil(b"\r\n")
    except asyncio.LimitOverrunError:
        raise NotResp("a line is too long") from None
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        return Refusal(rest.decode("utf-8", "replace"))
    if kind in _LINES and kind:
        return None if kind == b"_" else rest
    if kind in _BULKS and kind:
        return await _bulk(reader, kind, _length(rest, _BULK_LENGTH_MAX))
    if kind not in _AGGREGATES or depth >= _DEPTH_MAX:
        raise NotResp("it does not speak RESP3")
    count = _length(rest, ITEMS_MAX) * (2 if kind == b"%" else 1)
    parts = [await read(reader, depth + 1) for _ in range(count)]
    return Push(parts) if kind == b">" else parts


async def _bulk(reader: asyncio.StreamReader, kind: bytes, length: int) -> object:
    kept = min(length, BULK_MAX)
    data = await reader.readexactly(kept)
    left = length - kept + 2
    while left:
        left -= len(await reader.readexactly(min(left, _DROPPED_AT_ONCE)))
    return Refusal(data.decode("utf-8", "replace")) if kind == b"!" else data


def _length(digits: bytes, most: int) -> int:
    if not digits.isdigit() or len(digits) > 9 or int(digits) > most:
        raise NotResp("a length is none, or too large")
    return int(digits)
