"""The ways in which a text can be written: as it is, with JSON's escapes, percent-encoded, and
one of these within the other.

Each is read as what it stands for, with the place of every byte in the original.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
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

    def original(self, spans: Iterable[Span]) -> Iterator[Span]:
        """Return spans of ``data`` as spans of the piece."""
        for start, end in spans:
            yield self.start(start), self.end(end - 1)


@dataclass(frozen=True, slots=True)
class Read:
    """What a piece was read as; where each of its bytes begins and ends in the whole text."""

    data: bytes
    start: Callable[[int], int]
    end: Callable[[int], int]


class Ground:
    """A text that comes in pieces, as it stands."""

    def __init__(self) -> None:
        self.position = 0
        """Up to where the text was read."""

    def feed(self, piece: bytes, *, last: bool) -> Read:
        """Read on."""
        origin = self.position
        self.position += len(piece)
        return Read(piece, lambda at: origin + at, lambda at: origin + at + 1)


class Layer:
    """What a writing makes of what the layer below gives."""

    def __init__(self, writing: Writing, below: "Ground | Layer") -> None:
        self._writing = writing
        self._below = below
        self._pending = b""
        self._places: list[Span] = []
        """Where each byte that is pending begins and ends in the whole text."""

    @property
    def position(self) -> int:
        """Return up to where the whole text was read."""
        return self._places[0][0] if self._places else self._below.position

    def feed(self, piece: bytes, *, last: bool) -> Read:
        """Read on; what may be the beginning of a token waits for what follows."""
        below, places = self._below.feed(piece, last=last), self._places
        waited, text = len(places), self._pending + below.data
        reading = Reading(self._writing, text, last=last)

        def start(at: int) -> int:
            return places[at][0] if at < waited else below.start(at - waited)

        def end(at: int) -> int:
            return places[at][1] if at < waited else below.end(at - waited)

        self._pending = text[reading.used :]
        self._places = [(start(at), end(at)) for at in range(reading.used, len(text))]
        return Read(
            reading.data,
            lambda at: start(reading.start(at)),
            lambda at: end(reading.end(at) - 1),
        )


def layered(writings: Sequence[Writing]) -> Ground | Layer:
    """Return what reads a text in these writings, the first one outermost in the text."""
    layer: Ground | Layer = Ground()
    for writing in writings:
        layer = Layer(writing, layer)
    return layer
