"""Word: paragraphs by their styles, lists and tables, in their order.

The library opens the file; what stands in it is walked here, once: content controls, tracked
insertions, fields and text boxes hold text as well, and tables may be in tables.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import docx
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml.ns import qn

from insula.adapters.extraction.archives import open_archive
from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.pages import chosen
from insula.adapters.extraction.pictures import add_embedded

_PARAGRAPH, _TABLE, _ROW, _CELL = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_BREAK, _TYPE, _VALUE = qn("w:br"), qn("w:type"), qn("w:val")
_RENDERED_BREAK = qn("w:lastRenderedPageBreak")
_BOX = qn("w:txbxContent")
_AGAIN = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_THROUGH = frozenset(
    qn(f"w:{name}") for name in ("sdt", "sdtContent", "customXml", "ins", "moveTo")
)
"""What may stand around paragraphs, tables, rows and cells."""
_TEXT = (qn("w:t"), "{http://schemas.openxmlformats.org/officeDocument/2006/math}t")
_MARKS = {qn("w:tab"): "\t", qn("w:ptab"): "\t", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_LEFT_OUT = frozenset(
    (
        *(qn(f"w:{name}") for name in ("pPr", "rPr", "del", "moveFrom", "drawing", "pict")),
        *(qn("w:object"), _AGAIN.replace("Fallback", "AlternateContent")),
    )
)
_SPAN = 100
"""Columns over which a cell reaches, at most: some claim a billion."""


def read_word(file: BinaryIO, found: Collector) -> None:
    """Read a Word document. Its pages are those of its page breaks."""
    archive = open_archive(file, found.order.memory)
    if found.order.contents:
        file.seek(0)
        try:
            document = docx.Document(file)
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise Refused("The file is damaged: it is no Word document that can be read") from error
        _read(document, found)
    add_embedded(archive, "word/media/", found)


def _read(document: Any, found: Collector) -> None:
    parts = _paged(document.element.body)
    wanted = chosen(found.order, max((page for page, _ in parts), default=1))
    by_page: dict[int, list[Any]] = {page: [] for page in wanted}
    for page, part in parts:
        if page in by_page:
            by_page[page].append(part)
    names = _styles(document)
    done, count = 0, sum(map(len, by_page.values()))
    for page in wanted:
        for part in by_page[page]:
            _add(part, page, found, names)
            found.progress(done := done + 1, count)


def _styles(document: Any) -> dict[str | None, str]:
    """Return the names of the styles of paragraphs by their ids; of the usual one by ``None``."""
    try:
        named = {style.style_id: (style.name or "").lower() for style in document.styles}
        usual = document.styles.default(WD_STYLE_TYPE.PARAGRAPH)
        return {**named, None: "" if usual is None else (usual.name or "").lower()}
    except (KeyError, AttributeError, ValueError):
        return {None: ""}


def _paged(body: Any) -> list[tuple[int, Any]]:
    """Return the parts of a document, each with its page: as it was laid out when it was stored,
    if that was noted, else by the breaks that were set."""
    noted = next(body.iter(_RENDERED_BREAK), None) is not None
    page = 1
    parts: list[tuple[int, Any]] = []
    for part in _within(body, _PARAGRAPH, _TABLE):
        if part.tag == _PARAGRAPH:
            page += _breaks(part, noted=noted)
            parts.append((page, part))
        else:
            parts.append((page, part))
            page += _breaks(part, noted=noted)
    return parts


def _breaks(element: Any, *, noted: bool) -> int:
    if noted:  # a break that was set is noted as well, where the next page begins
        return sum(1 for _ in element.iter(_RENDERED_BREAK))
    return sum(1 for each in element.iter(_BREAK) if each.get(_TYPE) == "page")


def _within(element: Any, *tags: str) -> Iterator[Any]:
    """Give the elements of these kinds, whatever stands around them."""
    for child in element:
        if child.tag in tags:
            yield child
        elif child.tag in _THROUGH:
            yield from _within(child, *tags)


def _add(part: Any, page: int, found: Collector, names: dict[str | None, str]) -> None:
    """Add a part, and after it what stands in its text boxes."""
    _add_part(part, page, found, names)
    for box in part.iter(_BOX):
        if next(box.iterancestors(_AGAIN), None) is None:  # else it is there once more
            for inner in _within(box, _PARAGRAPH, _TABLE):
                _add_part(inner, page, found, names)


def _add_part(part: Any, page: int, found: Collector, names: dict[str | None, str]) -> None:
    if part.tag == _TABLE:
        found.table(_rows(part), page)
    else:
        _add_paragraph(part, page, found, names)


def _add_paragraph(
    paragraph: Any, page: int, found: Collector, names: dict[str | None, str]
) -> None:
    style, numbered = None, False
    properties = paragraph.find(qn("w:pPr"))
    if properties is not None:
        named = properties.find(qn("w:pStyle"))
        style = None if named is None else named.get(_VALUE)
        numbered = properties.find(qn("w:numPr")) is not None
    name = names.get(style, names[None])
    text = "".join(_pieces(paragraph))
    if name.startswith(("heading", "title")):
        found.title(text, page)
    elif name.startswith("list") or numbered:
        found.add("LISTITEM", text, page)
    else:
        found.add("NARRATIVETEXT", text, page)


def _pieces(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag in _TEXT:
            yield child.text or ""
        elif child.tag in _MARKS:
            yield _MARKS[child.tag]
        elif child.tag == _BREAK:
            yield "" if child.get(_TYPE) in ("page", "column") else "\n"
        elif child.tag not in _LEFT_OUT:
            yield from _pieces(child)


def _rows(table: Any) -> Iterator[list[str]]:
    """Give the rows of a table; a cell that reaches over several is in each of them."""
    above: list[str] = []
    for row in _within(table, _ROW):
        cells: list[str] = []
        for cell in _within(row, _CELL):
            span, goes_on = _reach(cell)
            text = _cell_text(cell)
            if goes_on and not text and len(cells) < len(above):
                text = above[len(cells)]
            cells += [text] * span
        yield cells
        above = cells


def _reach(cell: Any) -> tuple[int, bool]:
    """Return over how many columns a cell reaches, and whether it goes on from the row above."""
    span = cell.find(f"{qn('w:tcPr')}/{qn('w:gridSpan')}")
    merged = cell.find(f"{qn('w:tcPr')}/{qn('w:vMerge')}")
    columns = "" if span is None else span.get(_VALUE, "")
    number = int(columns) if columns.isascii() and columns.isdigit() and len(columns) < 9 else 1
    goes_on = merged is not None and merged.get(_VALUE, "continue") == "continue"
    return max(1, min(number, _SPAN)), goes_on


def _cell_text(cell: Any) -> str:
    texts = []
    for part in _within(cell, _PARAGRAPH, _TABLE):
        if part.tag == _PARAGRAPH:
            texts.append("".join(_pieces(part)))
        else:
            texts += [" ".join(filter(None, row)) for row in _rows(part)]
    return "\n".join(filter(None, texts))
