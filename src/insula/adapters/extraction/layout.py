"""A page's characters and where they stand, turned into titles, paragraphs, lists and tables.

The reading order is the document's own. Sizes tell titles, gaps tell columns: a guess, which is
right for most business documents and never loses a word.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from insula.adapters.extraction.collector import Collector
from insula.adapters.extraction.text import BULLET

_CELL_GAP = 1.6
"""Widths of the type size that part two columns."""
_LINE_GAP = 1.75
"""Heights of the type size between the lines of one paragraph, at most."""
_TITLE_SIZE = 1.15
_TITLE_LENGTH = 200
_HYPHENS = "\x02\u00ad"
_LEAST_SIZE = 0.1
_COLUMNS = 64
"""Of a table: a line of more cells is text, whose letters stand far from each other."""


class Character(NamedTuple):
    """One character and its box, in points from the page's lower left corner."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float


@dataclass(slots=True)
class _Line:
    """One line: its cells, each with the place where it begins and ends."""

    cells: list[tuple[str, float, float]] = field(default_factory=list)
    bottom: float = 0.0
    size: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(text for text, _, _ in self.cells)

    @property
    def left(self) -> float:
        return self.cells[0][1]


def add_page(characters: Sequence[Character], page: int, found: Collector) -> None:
    """Add the blocks of a page."""
    lines = _lines(characters)
    if not lines:
        return
    body = statistics.median(line.size for line in lines for _ in range(1 + len(line.text) // 20))
    at = 0
    while at < len(lines):
        rows = _table_length(lines, at)
        if rows:
            _add_table(lines[at : at + rows], page, found)
            at += rows
            continue
        at = _add_text(lines, at, body, page, found)


def _lines(characters: Sequence[Character]) -> list[_Line]:
    lines: list[_Line] = []
    waiting: list[Character] = []
    for character in characters:
        if character.text in ("\r", "\n", ""):
            _end_line(waiting, lines)
            waiting = []
        else:
            waiting.append(character)
    _end_line(waiting, lines)
    return lines


def _end_line(characters: list[Character], lines: list[_Line]) -> None:
    visible = [c for c in characters if not c.text.isspace()]
    if not visible:
        return
    size = max(_LEAST_SIZE, statistics.median(c.size or c.top - c.bottom for c in visible))
    height = max(_LEAST_SIZE, statistics.median(c.top - c.bottom for c in visible))
    size = max(size, height)
    line = _Line(bottom=min(c.bottom for c in visible), size=size)
    text, start, last = [""], visible[0].left, visible[0].left
    seen = False
    for character in characters:
        if character.text.isspace():
            text.append(" ")
            continue
        if seen and character.left - last > _CELL_GAP * size:
            line.cells.append(("".join(text).strip(), start, last))
            text, start = [], character.left
        text.append(character.text)
        seen, last = True, character.right
    line.cells.append(("".join(text).strip(), start, last))
    lines.append(line)


def _table_length(lines: Sequence[_Line], at: int) -> int:
    """Return how many lines from here on are rows of one table; one row is none."""
    if not 2 <= len(lines[at].cells) <= _COLUMNS:
        return 0
    columns = [(start, end) for _, start, end in lines[at].cells]
    rows = 1
    for line in lines[at + 1 :]:
        if not 2 <= len(line.cells) <= _COLUMNS or not _fits(line, columns):
            break
        rows += 1
    return rows if rows > 1 else 0


def _fits(line: _Line, columns: list[tuple[float, float]]) -> bool:
    """Whether most cells of a line begin or end where a column does, or overlap it alone."""
    return sum(_column(cell, columns) is not None for cell in line.cells) * 2 > len(line.cells)


def _column(cell: tuple[str, float, float], columns: list[tuple[float, float]]) -> int | None:
    _, start, end = cell
    best, most = None, 0.0
    for number, (left, right) in enumerate(columns):
        overlap = min(end, right) - max(start, left)
        if overlap > most:
            best, most = number, overlap
    return best


def _add_table(lines: Sequence[_Line], page: int, found: Collector) -> None:
    widest = max(lines, key=lambda line: len(line.cells))
    columns = [(start, end) for _, start, end in widest.cells]
    rows = []
    for line in lines:
        row = [""] * len(columns)
        for cell in line.cells:
            near = min(range(len(columns)), key=lambda n: abs(columns[n][0] - cell[1]))
            place = _column(cell, columns)
            place = near if place is None else place
            row[place] = f"{row[place]} {cell[0]}".strip()
        rows.append(row)
    found.table(rows, page)


def _add_text(lines: Sequence[_Line], at: int, body: float, page: int, found: Collector) -> int:
    """Add the block that begins at a line; return where the next one does."""
    first = lines[at]
    end = at + 1
    while end < len(lines) and _continues(lines, at, end):
        end += 1
    text = _joined(lines[at:end])
    mark = BULLET.match(text)
    if mark:
        found.add("LISTITEM", text[mark.end() :], page)
    elif first.size > body * _TITLE_SIZE and len(text) <= _TITLE_LENGTH:
        found.title(text, page)
    else:
        found.add("NARRATIVETEXT", text, page)
    return end


def _continues(lines: Sequence[_Line], start: int, at: int) -> bool:
    before, line = lines[at - 1], lines[at]
    size = before.size
    if abs(line.size - size) > 0.15 * size or BULLET.match(line.text):
        return False
    if not 0 < before.bottom - line.bottom <= _LINE_GAP * size:
        return False
    return not _table_length(lines, at)


def _joined(lines: Sequence[_Line]) -> str:
    parts: list[str] = []
    for line in lines:
        text = line.text
        if parts and _is_parted(parts[-1], text):
            parts[-1] = parts[-1][:-1]
        elif parts:
            text = f" {text}"
        parts.append(text)
    return "".join(parts).translate({ord(mark): "" for mark in _HYPHENS})


def _is_parted(text: str, following: str) -> bool:
    """Whether a word goes on in the next line."""
    if text[-1:] == "-":
        return text[-2:-1].isalpha() and following[:1].islower()
    return text[-1] in _HYPHENS
