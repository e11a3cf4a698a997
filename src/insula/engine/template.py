"""Settings with holes: ``{{path}}`` or ``{{JavaScript}}``, read once and filled in many times."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import quote

from insula.engine.failures import StepFailure
from insula.engine.scripts import CANNOT_WAIT, GLOBALS, STEP_PROPERTIES, analyse
from insula.engine.template_paths import Lookup, Path, Place, Reader, first_byte, parse_path
from insula.engine.template_scan import BadTemplate, Gap, split
from insula.kit import json
from insula.kit.json import Raw
from insula.kit.json_bounds import check

Kind = Literal["text", "json", "url", "header"]
Suffix = Literal["contents", "images", "file"]
Writing = Literal["plain", "json", "json_string", "percent"]
"""How a value becomes text: as it is, as JSON, inside a JSON string, or inside a URL."""

_CACHED_MAX: Final = 16 * 1024
_ALIASES: Final = {"env": "variables", "secrets": "variables"}
_SUFFIXES: Final[dict[str, Suffix]] = {"contents": "contents", "images": "images", "file": "file"}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_QUOTE: Final = re.compile(r'\\.|"', re.DOTALL)
_ORIGIN: Final = re.compile(r"[^/?#:]*+://")
_ORIGIN_MAX: Final = 2048


SETTINGS_MAX: Final = 64 * 1024 * 1024
"""Bytes of all settings of a step together, filled in."""


class Filling:
    """What the settings of one step are filled in with, and how much room is left for them."""

    def __init__(self, lookup: Lookup) -> None:
        self.reader = Reader(lookup)
        self._room = SETTINGS_MAX

    def take(self, size: int) -> None:
        """Count so many bytes more.

        Raises:
            StepFailure: ``limit_settings``, there is no room for them.
        """
        self._room -= size
        if self._room < 0:
            raise StepFailure(
                f"The step's settings come to more than {SETTINGS_MAX:,} bytes when they are "
                "filled in, their limit",
                "limit_settings",
            )


@dataclass(frozen=True, slots=True)
class Hole:
    """A hole: either a ``path``, or the number of a ``script``. With ``suffix`` it means a file."""

    source: str
    writing: Writing
    path: Path | None = None
    script: int | None = None
    suffix: Suffix | None = None


@dataclass(frozen=True, slots=True)
class FileValue:
    """What stands in a message where a file hole is: the file or files, ``None`` if missing."""

    suffix: Suffix
    value: Raw | None


@dataclass(frozen=True, slots=True)
class Template:
    """A setting, read. ``scripts`` are to be evaluated, in order, and their values handed in.

    ``names`` are those that paths and scripts mention, ``references`` those that they read like
    steps. ``single``: the whole setting is one hole. ``error`` says why it is no template.
    """

    parts: tuple[str | Hole, ...] = ()
    kind: Kind = "text"
    scripts: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()
    files: tuple[Hole, ...] = ()
    single: bool = False
    error: str | None = None


def compile_template(text: str, kind: Kind = "text") -> Template:
    """Read a setting of a kind: ``json`` escapes for JSON, ``url`` and ``header`` for these."""
    return _small(text, kind) if len(text) <= _CACHED_MAX else _large(text, kind)


@lru_cache(maxsize=2048)
def _small(text: str, kind: Kind) -> Template:
    return _compile(text, kind)


@lru_cache(maxsize=16)
def _large(text: str, kind: Kind) -> Template:
    return _compile(text, kind)


def _compile(text: str, kind: Kind) -> Template:
    try:
        split_parts = split(text)
        holes = [part for part in split_parts if isinstance(part, Gap)]
        literals = [part for part in split_parts if isinstance(part, str)]
        single = len(holes) == 1 and not "".join(literals).strip()
        building = _Building(kind, single)
        parts = tuple(building.add(part) for part in split_parts)
    except BadTemplate as error:
        return Template(kind=kind, error=str(error))
    return Template(
        parts=parts,
        kind=kind,
        scripts=tuple(building.scripts),
        names=frozenset(building.names),
        references=frozenset(building.references),
        files=tuple(p for p in parts if isinstance(p, Hole) and p.suffix is not None),
        single=single,
    )


def kind_of(text: str) -> Kind:
    """Return ``json`` for a setting that is JSON whatever its holes hold, else ``text``.

    Its own text alone decides: no value makes JSON of it, and none changes what it says.
    """
    template = compile_template(text, "json") if text.lstrip()[:1] in ("{", "[") else None
    if template is None or template.error is not None:
        return "text"
    pieces = (part if isinstance(part, str) else _stand_in(part) for part in template.parts)
    try:
        check("".join(pieces).encode("utf-8", "surrogatepass"))
    except json.InvalidJson:
        return "text"
    return "json"


def _stand_in(hole: Hole) -> str:
    return "" if hole.writing == "json_string" else "null"


class _Building:
    """Turns gaps into holes, minding where in a JSON text or a URL each one stands."""

    def __init__(self, kind: Kind, single: bool) -> None:
        self.scripts: list[str] = []
        self.names: set[str] = set()
        self.references: set[str] = set()
        self._kind = kind
        self._single = single
        self._in_string = False
        self._origin: str | None = ""
        """The URL so far, as long as it may still be its scheme and host."""

    def add(self, part: str | Gap) -> str | Hole:
        if isinstance(part, Gap):
            return self._hole(part)
        if self._kind == "json":
            quotes = sum(1 for found in _QUOTE.findall(part) if found == '"')
            self._in_string ^= quotes % 2 == 1
        elif self._kind == "url" and self._origin is not None:
            self._origin += part
            origin = _ORIGIN.match(self._origin)
            after = self._origin[origin.end() if origin else 0 :]
            if len(after) > _ORIGIN_MAX or any(mark in after for mark in "/?#"):
                self._origin = None
        return part

    def _writing(self) -> Writing:
        if self._kind == "json":
            return "json_string" if self._in_string else "json"
        encoded = self._kind == "url" and self._origin is None and not self._single
        return "percent" if encoded else "plain"

    def _hole(self, gap: Gap) -> Hole:
        source = gap.source.strip()
        if not source:
            raise BadTemplate(f"line {gap.line}: {{{{}}}} is empty; put a path in it")
        before, _, after = source.rpartition(":")
        suffix = _SUFFIXES.get(after.strip())
        path = parse_path(before if suffix else source)
        if path is not None and (suffix or path.root not in GLOBALS):
            return self._path(source, path, suffix)
        script = analyse(source)
        if script.error is not None or not script.expression:
            why = script.error or "not an expression"
            raise BadTemplate(f"line {gap.line}: {{{{{_shown(source)}}}}}: {why}")
        if script.awaits:
            raise BadTemplate(f"line {gap.line}: {{{{{_shown(source)}}}}}: {CANNOT_WAIT}")
        self.scripts.append(source)
        self.names |= script.names
        self.references |= script.references
        return Hole(source, self._writing(), script=len(self.scripts) - 1)

    def _path(self, source: str, path: Path, suffix: Suffix | None) -> Hole:
        root = _ALIASES.get(path.root, path.root)
        self.names.add(root)
        if path.segments and path.segments[0] in STEP_PROPERTIES:
            self.references.add(root)
        return Hole(source, self._writing(), path=Path(root, path.segments), suffix=suffix)


def render(template: Template, filling: Filling, values: Sequence[Raw | None]) -> str:
    """Fill a setting in. ``values`` are those of ``template.scripts``, ``None`` for ``undefined``.

    Raises:
        StepFailure: it is no template, leaves the step's settings no room, names a file where none
            can stand, or puts control characters into a header.
    """
    pieces = render_parts(template, filling, values)
    if template.files:
        file = template.files[0]
        raise StepFailure(
            f"{{{{{_shown(file.source)}}}}}: :{file.suffix} can stand in model messages only",
            "input",
        )
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    if template.kind == "header" and _CONTROL.search(text):
        raise StepFailure(
            "A header holds a line break or another control character; remove it", "input"
        )
    return text


def render_value(template: Template, filling: Filling, values: Sequence[Raw | None]) -> Raw:
    """Fill a setting in as JSON: what is exactly one hole keeps its value's type.

    Raises:
        StepFailure: as ``render`` does.
    """
    hole = next((part for part in template.parts if isinstance(part, Hole)), None)
    if template.error is None and template.single and hole is not None and hole.suffix is None:
        value = _place(hole, filling.reader, values).raw or json.NULL
        filling.take(len(memoryview(value)))
        return value
    return json.raw(render(template, filling, values))


def render_parts(
    template: Template, filling: Filling, values: Sequence[Raw | None]
) -> list[str | FileValue]:
    """Fill a setting of a model's message in: pieces of text, and files where file holes are.

    Raises:
        StepFailure: it is no template, or leaves the step's settings no room.
    """
    if template.error is not None:
        raise StepFailure(f"The template does not parse: {template.error}", "script")
    pieces: list[str | FileValue] = []
    for part in template.parts:
        if isinstance(part, Hole) and part.suffix is not None:
            pieces.append(FileValue(part.suffix, _place(part, filling.reader, values).raw))
            continue
        piece = (
            part if isinstance(part, str) else _write(part, _place(part, filling.reader, values))
        )
        filling.take(len(piece) if piece.isascii() else len(piece.encode()))
        pieces.append(piece)
    return pieces


def _place(hole: Hole, reader: Reader, values: Sequence[Raw | None]) -> Place:
    if hole.path is not None:
        return reader.at(hole.path)
    assert hole.script is not None
    return Place(values[hole.script])


def _write(hole: Hole, place: Place) -> str:
    written = place.written.get(hole.writing)
    if written is None:
        try:
            written = place.written[hole.writing] = _written(place.raw, hole.writing)
        except (json.InvalidJson, UnicodeError) as error:
            raise StepFailure(
                f"{{{{{_shown(hole.source)}}}}} is no text: {error}", "input"
            ) from error
    return written


def _written(value: Raw | None, writing: Writing) -> str:
    if writing == "json":
        return "null" if value is None else bytes(value).decode()
    text = _plain(value)
    if writing == "json_string":
        return json.encode(text)[1:-1].decode()
    return quote(text, safe="") if writing == "percent" else text


def _plain(value: Raw | None) -> str:
    """Texts as they are, nothing for a missing value and ``null``, JSON for everything else."""
    if value is None:
        return ""
    first = first_byte(value)
    if first == b'"':
        return str(json.decode(value))
    return "" if first == b"n" else bytes(value).decode()


def _shown(source: str) -> str:
    return source if len(source) <= 40 else source[:40] + "…"
