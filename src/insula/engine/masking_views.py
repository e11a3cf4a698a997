"""The ways in which a text can be written: as it is, with JSON's escapes, percent-encoded.

Each is read as what it stands for, with the place of every byte in the original.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from insula.engine.masking_patterns import Span

_HIGH: Final = rb"[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = rb"[dD][c-fC-F][0-9a-fA-F]{2}"
_CUT: Final = rb"(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z"
_SHORT: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True, slots=True)
class Writing:
    """A way of writing: its tokens, the sign that all of them begin with, and what they mean.

    ``partial`` matches what may be the beginning of a token, at the end of a piece.
    """

    sign: bytes
    tokens: re.Pattern[bytes]
    partial: re.Pattern[bytes]
    meaning: Callable[[bytes], bytes]


def _json(token: bytes) -> bytes:
    if token[1:2] != b"u":
        return _SHORT.get(token[1:2], token[1:2])
    units = bytes.fromhex(token.replace(b"\\u", b"").decode())
    return units.decode("utf-16-be", "replace").encode()


def _percent(token: bytes) -> bytes:
    return bytes.fromhex(token[1:].decode())


WRITINGS: Final = (
    Writing(
        b"\\",
        re.compile(
            rb"\\u" + _HIGH + rb"\\u" + _LOW + rb"|\\u(?!" + _HIGH + _CUT + rb")[0-9a-fA-F]{4}"
            rb'|\\["\\/bfnrt]'
        ),
        re.compile(rb"\\(?:u" + _HIGH + _CUT + rb"|u[0-9a-fA-F]{0,3}\Z|\Z)"),
        _json,
    ),
    Writing(
        b"%",
        re.compile(rb"%[0-9a-fA-F]{2}"),
        re.compile(rb"%[0-9a-fA-F]?\Z"),
        _percent,
    ),
)


class Reading:
    """A piece of text as a writing means it: ``data``, and where each byte comes from.

    ``used`` bytes of the piece were read: what follows them may be the beginning of a token.
    """

    def __init__(self, writing: Writing, piece: bytes, last: bool) -> None:
        self._places = [0]
        self._origins = [0]
        self._ends = [0]
        """Of a token, where it ends in the piece; 0 for what stands as it is."""
        parts: list[bytes] = []
        position = length = 0
        for match in writing.tokens.finditer(piece):
            start, end = match.span()
            meaning = writing.meaning(match[0])
            parts += (piece[position:start], meaning)
            length += start - position
            self._mark(length, start, end)
            length += len(meaning)
            self._mark(length, end, 0)
            position = end
        cut = None if last else writing.partial.search(piece, position)
        self.used = len(piece) if cut is None else cut.start()
        parts.append(piece[position : self.used])
        self.data = b"".join(parts)

    def _mark(self, place: int, origin: int, end: int) -> None:
        self._places.append(place)
        self._origins.append(origin)
        self._ends.append(end)

    def start(self, place: int) -> int:
        """Return where a byte of ``data`` begins in the piece."""
        at = bisect_right(self._places, place) - 1
        inside = 0 if self._ends[at] else place - self._places[at]
        return self._origins[at] + inside

    def end(self, place: int) -> int:
        """Return where a byte of ``data`` ends in the piece."""
        at = bisect_right(self._places, place) - 1
        return self._ends[at] or self._origins[at] + place - self._places[at] + 1

    def original(self, spans: list[Span]) -> Iterator[Span]:
        """Return spans of ``data`` as spans of the piece."""
        for start, end in spans:
            yield self.start(start), self.end(end - 1)
