"""Plain text, and what is text underneath: paragraphs, lists, tables of values."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import BinaryIO

from insula.adapters.extraction.collector import Collector

BULLET = re.compile(r"^\s*(?:[•‣◦▪●*–-]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n+")
_DELIMITERS = "\t;|,"
"""The comma last: where another one parts as many lines alike, commas are of the numbers."""
_CELLS = 1_000
_FIELD_MAX = 1_000_000
_PIECE = 20_000
_GUESSED = 8_192


def decoded(data: bytes, declared: str = "cp1252") -> str:
    """Decode text: UTF-8, UTF-16 with its mark, else as it declares, or the Western 8-bit set."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8-sig")
    with suppress(LookupError, ValueError):  # a set that nobody knows
        return data.decode(declared, "replace")
    return data.decode("cp1252", "replace")


def read_text(file: BinaryIO, found: Collector) -> None:
    """Read plain text: blank lines part its paragraphs."""
    add_paragraphs(decoded(file.read()), found)


def add_paragraphs(text: str, found: Collector, page: int = 1) -> None:
    """Add the paragraphs and lists of a text."""
    paragraphs = _PARAGRAPHS.split(text.replace("\r\n", "\n"))
    for number, paragraph in enumerate(paragraphs):
        lines = paragraph.split("\n")
        if any(BULLET.match(line) for line in lines) and BULLET.match(lines[0]):
            _add_list(lines, found, page)
        else:
            for at in range(0, len(paragraph), _PIECE):
                found.add("NARRATIVETEXT", paragraph[at : at + _PIECE], page)
        found.progress(number + 1, len(paragraphs))


def _add_list(lines: list[str], found: Collector, page: int) -> None:
    item: list[str] = []
    for line in [*lines, ""]:
        mark = BULLET.match(line)
        if item and (mark or not line):
            found.add("LISTITEM", " ".join(item), page)
            item = []
        if line:
            item.append(line[mark.end() :] if mark else line.strip())


def read_table(file: BinaryIO, found: Collector) -> None:
    """Read comma- or otherwise separated values."""
    text = decoded(file.read())
    csv.field_size_limit(_FIELD_MAX)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True
    )
    lines = 0

    def rows() -> Iterator[list[str]]:
        nonlocal lines
        with suppress(csv.Error):  # a field without its end
            for row in reader:
                lines = reader.line_num
                if len(row) > _CELLS:
                    found.leave_out(f"columns after the first {_CELLS:,}")
                yield row[:_CELLS]

    found.table(rows(), header=True)
    add_paragraphs("".join(islice(io.StringIO(text, newline=""), lines, None)), found)


def _delimiter(text: str) -> str:
    """Return what parts the fields: by it most lines at the beginning have as many of them."""
    sample, best, most = text[:_GUESSED], ",", 0
    for delimiter in _DELIMITERS:
        lines = io.StringIO(sample, newline="")
        with suppress(csv.Error):
            rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            widths = Counter(len(row) for row in rows if len(row) > 1)
            alike = max(widths.values(), default=0)
            if alike > most:
                best, most = delimiter, alike
    return best
