"""Covers secret values wherever they come back: in bytes, texts, JSON, and texts that stream.

A value is found as it is, with any of JSON's escapes, and percent-encoded, however these are mixed.
Other encodings (base64, say) are not found.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any, Final

from insula.engine.masking_patterns import LEAST, Patterns, Span, merged
from insula.engine.masking_views import WRITINGS, Ground, Layer, Reading, Writing, layered
from insula.kit import json
from insula.kit.json import Raw

MASK: Final = "•••"
PLAIN_MASK: Final = b"***"
"""For bytes that are not UTF-8."""
_MASK: Final = MASK.encode()
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]*")
_URL: Final = re.compile(r"(https?://)(?:[^/?#]*@)?([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PORTS: Final = {"http://": ":80", "https://": ":443"}


class Masker:
    """Covers some values, each of at least 8 bytes; shorter ones would cover too much else."""

    def __init__(self, values: Iterable[str]) -> None:
        self._patterns = Patterns(form for value in values for form in _forms(value))

    def __bool__(self) -> bool:
        return bool(self._patterns.texts)

    def spans(self, data: bytes) -> list[Span]:
        """Return where values stand; those that overlap are one."""
        found = self._patterns.find(data)
        for writing in WRITINGS:
            if writing.sign in data:
                reading = Reading(writing, data, last=True)
                found += reading.original(self._patterns.find(reading.data))
                found += reading.original(self._within(writing, reading.data))
        return merged(found)

    def _within(self, read: Writing, data: bytes) -> Iterator[Span]:
        """Yield where values stand in what was read already, written in another way as well."""
        for writing in WRITINGS:
            if writing is not read and writing.sign in data:
                reading = Reading(writing, data, last=True)
                yield from reading.original(self._patterns.find(reading.data))

    def data(self, data: bytes, mask: bytes = _MASK) -> bytes:
        """Return bytes with every value covered."""
        spans = self.spans(data)
        return _covered(data, spans, mask) if spans else data

    def text(self, text: str) -> str:
        """Return a text with every value covered."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self.spans(data)
        if not spans:
            return text
        covered = _covered(data, spans, _MASK)
        try:
            return covered.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # a value in another charset, which overlapped a character
            return covered.decode("utf-8", "replace")

    def json(self, value: Raw) -> Raw:
        """Return JSON text with every value covered: in its texts and keys, and numbers that are
        one. What is not JSON becomes a JSON text."""
        if not self.spans(bytes(value)):
            return value
        try:
            return json.raw(self.value(json.decode(value)))
        except json.InvalidJson:
            return json.raw(self.text(bytes(value).decode("utf-8", "replace")))

    def value(self, value: Any) -> Any:
        """Return a decoded JSON value with every value covered."""
        try:
            return self._value(value)
        except RecursionError:
            return MASK

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._value(key): self._value(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(part) for part in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return MASK if self.spans(json.encode(value)) else value
        return value

    def stream(self) -> "StreamMasker":
        """Begin a text that comes in pieces."""
        return StreamMasker(self._patterns)


class StreamMasker:
    """Covers values in a text that comes in pieces, wherever it is cut.

    Held back is only an end that may be the beginning of a value. All pieces together are what
    ``Masker.text`` makes of the whole.
    """

    def __init__(self, patterns: Patterns) -> None:
        self._views = [_View(patterns, layered(writings)) for writings in _WAYS]
        self._held = b""
        self._base = 0
        """Where ``_held`` begins in the whole text."""
        self._covered = 0
        """Up to where what was given out covers the text."""
        self._found: list[Span] = []

    def feed(self, text: str) -> str:
        """Take a piece; return what can be said for certain."""
        piece = text.encode("utf-8", "surrogatepass")
        self._held += piece
        for view in self._views:
            self._found += view.feed(piece)
        return self._give(min(view.held_from for view in self._views))

    def finish(self) -> str:
        """Return the rest."""
        for view in self._views:
            self._found += view.feed(b"", last=True)
        return self._give(self._base + len(self._held))

    def _give(self, until: int) -> str:
        out: list[bytes] = []
        at = max(self._base, min(self._covered, until))
        spans = merged(self._found)
        for start, end in spans:
            if start >= until:
                break
            if start >= self._covered:
                out += (self._held[at - self._base : start - self._base], _MASK)
            self._covered = max(self._covered, end)
            at = max(at, min(end, until))
        out.append(self._held[at - self._base : until - self._base])
        self._found = [span for span in spans if span[0] >= until]
        self._held = self._held[until - self._base :]
        self._base = until
        covered = b"".join(out)
        try:
            return covered.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # a value in another charset, which overlapped a character
            return covered.decode("utf-8", "replace")


_WAYS: Final = ((), *((each,) for each in WRITINGS), *permutations(WRITINGS, 2))
"""As the text stands; in one writing; in one within another."""


class _View:
    """The text so far, read in one way."""

    def __init__(self, patterns: Patterns, layer: Ground | Layer) -> None:
        self._patterns = patterns
        self._layer = layer
        self._state = 0
        self._starts: list[int] = []
        """Where the last bytes begin that may be the beginning of a value."""

    @property
    def held_from(self) -> int:
        """Return where what has to be held back begins."""
        return self._starts[0] if self._starts else self._layer.position

    def feed(self, piece: bytes, *, last: bool = False) -> Iterator[Span]:
        """Read on; yield the spans of the whole text that have come to their ends.

        ``last``: nothing follows, so that what looks like the beginning of an escape is none.
        """
        read = self._layer.feed(piece, last=last)
        before = self._starts
        self._state, spans = self._patterns.scan(self._state, read.data)
        for start, end in spans:
            begin = before[start] if start < 0 else read.start(start)
            yield begin, read.end(end - 1)
        size, depth = len(read.data), self._patterns.depths[self._state]
        kept = before[len(before) + size - depth :] if depth > size else []
        self._starts = kept + [read.start(at) for at in range(max(0, size - depth), size)]


def _forms(value: str) -> Iterator[bytes]:
    bare = value.strip()  # as addresses and headers are sent
    for text in dict.fromkeys((value, bare, _as_address(bare))):
        yield from _encoded(text)


def _as_address(text: str) -> str:
    """Return a text as answers and errors tell it where it was sent as an address, or as a host:
    hosts have no case, and who asks and the usual port are left out."""
    url = _URL.fullmatch(text)
    if url is None:
        return text.lower() if _HOST.fullmatch(text) else text
    scheme, host = url[1].lower(), url[2].lower()
    return f"{scheme}{host.removesuffix(_PORTS[scheme])}{url[3]}"


def _encoded(value: str) -> Iterator[bytes]:
    data = value.encode("utf-8", "surrogatepass")
    if len(data) < LEAST:
        return
    yield data
    yield json.encode(data.decode("utf-8", "replace"))[1:-1]  # JSON inside of a JSON text
    yield data.replace(b" ", b"+")  # in forms and queries
    if value.isascii():
        return
    yield data.decode("latin-1").encode()  # in headers, which are read as Latin-1
    if not any(ord(character) > 0xFF for character in value):
        yield value.encode("latin-1")


def _covered(data: bytes, spans: list[Span], mask: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    for start, end in spans:
        parts += (data[at:start], mask)
        at = end
    parts.append(data[at:])
    return b"".join(parts)
