"""Paths into a scope, ``STEP.output.list[0]?.name``: reading them, and finding what is there."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from insula.engine.failures import StepFailure
from insula.kit import json
from insula.kit.json import Raw

Lookup = Callable[[str], Raw | None]
"""Gives a scope entry's JSON text, ``None`` where there is none."""

_NAME: Final = r"[^\W\d][\w$]*+|\$[\w$]*+"
_ROOT: Final = re.compile(rf"\s*+({_NAME})")
_SEGMENT: Final = re.compile(
    rf"""
    \s*+ (?:\?\.|\.) \s*+ (?P<name>{_NAME})
  | \s*+ (?:\?\.\s*+)?+ \[ \s*+
      (?: (?P<index>\d{{1,15}}+) | "(?P<double>[^"\\\n]*+)" | '(?P<single>[^'\\\n]*+)' )
    \s*+ \]
    """,
    re.VERBOSE,
)
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_SPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Path:
    """A name of the scope, and the way from its value to another."""

    root: str
    segments: tuple[str | int, ...]


def parse_path(text: str) -> Path | None:
    """Read a path; ``None`` if the text is something else."""
    match = _ROOT.match(text)
    if match is None:
        return None
    root, position = match[1], match.end()
    segments: list[str | int] = []
    while match := _SEGMENT.match(text, position):
        segments.append(_segment(match))
        position = match.end()
    return Path(root, tuple(segments)) if not text[position:].strip() else None


def _segment(match: re.Match[str]) -> str | int:
    if match["index"] is not None:
        return int(match["index"])
    return next(t for t in (match["name"], match["double"], match["single"]) if t is not None)


class Place:
    """A value in the scope. What is below it is read once, however many paths lead through it."""

    __slots__ = ("_below", "_items", "_members", "_units", "raw", "written")

    def __init__(self, raw: Raw | None) -> None:
        self.raw = raw
        self.written: dict[str, str] = {}
        self._below: dict[str | int, Place] = {}
        self._members: dict[str, Raw] | None = None
        self._items: list[Raw] | None = None
        self._units: bytes | None = None

    def below(self, segment: str | int) -> "Place":
        """Return the value that one segment leads to."""
        found = self._below.get(segment)
        if found is None:
            found = self._below[segment] = Place(self._find(segment))
        return found

    def _find(self, segment: str | int) -> Raw | None:
        if self.raw is None:
            return None
        match first_byte(self.raw):
            case b"{":
                if self._members is None:
                    self._members = json.members(self.raw)
                return self._members.get(str(segment))
            case b"[":
                if self._items is None:
                    self._items = _ARRAY.decode(self.raw)
                return _item(self._items, segment)
            case b'"':
                if self._units is None:
                    self._units = json.decode(self.raw).encode("utf-16-le")
                return _character(self._units, segment)
        return None


class Reader:
    """Follows paths through one scope."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._roots: dict[str, Place] = {}

    def at(self, path: Path) -> Place:
        """Return the place that a path leads to; where nothing is, its ``raw`` is ``None``.

        Raises:
            StepFailure: a value is not JSON.
        """
        place = self._roots.get(path.root)
        if place is None:
            place = self._roots[path.root] = Place(self._lookup(path.root))
        try:
            for segment in path.segments:
                place = place.below(segment)
        except (json.InvalidJson, msgspec.DecodeError, RecursionError) as error:
            raise StepFailure(f"{path.root} cannot be read: {error}", "input") from error
        return place


def first_byte(raw: Raw) -> bytes:
    """Return the first byte of JSON text that is no white space."""
    with memoryview(raw) as view:
        for byte in view:
            if byte not in _SPACE:
                return bytes((byte,))
    return b""


def _item(items: list[Raw], segment: str | int) -> Raw | None:
    if segment == "length":
        return json.raw(len(items))
    index = segment if isinstance(segment, int) else _index(segment)
    return items[index] if index is not None and index < len(items) else None


def _character(units: bytes, segment: str | int) -> Raw | None:
    """Answer as JavaScript does, which counts and indexes UTF-16."""
    if segment == "length":
        return json.raw(len(units) // 2)
    index = segment if isinstance(segment, int) else _index(segment)
    if index is None or index >= len(units) // 2:
        return None
    return json.raw(units[2 * index : 2 * index + 2].decode("utf-16-le", "replace"))


def _index(segment: str) -> int | None:
    """Read ``"0"`` as JavaScript reads it in ``list["0"]``."""
    plain = segment.isascii() and segment.isdigit() and len(segment) < 16
    return int(segment) if plain and str(int(segment)) == segment else None
