"""Plain text, and what is text underneath: paragraphs, lists, tables of values."""

import csv
import io
import re
from typing import BinaryIO

from insula.adapters.extraction.collector import Collector

BULLET = re.compile(r"^\s*(?:[•‣◦▪●*–-]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n+")
_ROWS = 500
"""Rows of one TABLE block: a longer table becomes several."""
_CELLS = 1_000
_FIELD_MAX = 1_000_000
_PIECE = 20_000
_GUESSED = 8_192


def decoded(data: bytes) -> str:
    """Decode text: UTF-8, UTF-16 with its mark, else the Western 8-bit set."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
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
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(text[:_GUESSED], ",;\t|")
    except csv.Error:
        dialect = csv.excel_tab if "\t" in text[:_GUESSED] else csv.excel
    rows: list[list[str]] = []
    first = True
    try:
        for row in csv.reader(io.StringIO(text, newline=""), dialect):
            rows.append(row[:_CELLS])
            if len(rows) == _ROWS:
                found.table(rows, header=first)
                rows, first = [], False
    except csv.Error:  # a field without its end: what is left is text
        found.table(rows, header=first)
        add_paragraphs(text, found)
        return
    found.table(rows, header=first)
