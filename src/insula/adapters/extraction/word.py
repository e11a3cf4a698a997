"""Word: paragraphs by their styles, lists and tables, in their order."""

from typing import Any, BinaryIO

import docx
from docx.oxml.ns import qn
from docx.table import Table
from docx.text.paragraph import Paragraph

from insula.adapters.extraction.archives import open_archive
from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.pages import chosen
from insula.adapters.extraction.pictures import add_embedded

_BREAK = qn("w:br")
_RENDERED_BREAK = qn("w:lastRenderedPageBreak")


def read_word(file: BinaryIO, found: Collector) -> None:
    """Read a Word document. Its pages are those of its page breaks."""
    archive = open_archive(file, found.order.memory)
    if found.order.contents:
        file.seek(0)
        try:
            document = docx.Document(file)
        except (KeyError, ValueError, AttributeError) as error:
            raise Refused("The file is damaged: it is no Word document that can be read") from error
        _read(document, found)
    add_embedded(archive, "word/media/", found)


def _read(document: Any, found: Collector) -> None:
    parts = _paged(document)
    wanted = chosen(found.order, max((page for page, _ in parts), default=1))
    by_page: dict[int, list[Table | Paragraph]] = {page: [] for page in wanted}
    for page, part in parts:
        if page in by_page:
            by_page[page].append(part)
    done, count = 0, sum(map(len, by_page.values()))
    for page in wanted:
        for part in by_page[page]:
            if isinstance(part, Table):
                found.table([[cell.text for cell in row.cells] for row in part.rows], page)
            else:
                _add(part, page, found)
            found.progress(done := done + 1, count)


def _paged(document: Any) -> list[tuple[int, Table | Paragraph]]:
    """Return the parts of a document, each with its page: as it was laid out when it was stored,
    if that was noted, else by the breaks that were set."""
    noted = next(document.element.body.iter(_RENDERED_BREAK), None) is not None
    page = 1
    parts: list[tuple[int, Table | Paragraph]] = []
    for part in document.iter_inner_content():
        if isinstance(part, Paragraph):
            page += _breaks(part._p, noted=noted)
            parts.append((page, part))
        elif isinstance(part, Table):
            parts.append((page, part))
            page += _breaks(part._tbl, noted=noted)
    return parts


def _add(paragraph: Paragraph, page: int, found: Collector) -> None:
    style = _style(paragraph)
    text = paragraph.text
    if style.startswith(("heading", "title")):
        found.title(text, page)
    elif style.startswith("list") or _is_numbered(paragraph):
        found.add("LISTITEM", text, page)
    else:
        found.add("NARRATIVETEXT", text, page)


def _is_numbered(paragraph: Paragraph) -> bool:
    properties = paragraph._p.pPr
    return properties is not None and properties.numPr is not None


def _style(paragraph: Paragraph) -> str:
    try:
        return (paragraph.style.name or "").lower() if paragraph.style is not None else ""
    except (KeyError, AttributeError):
        return ""


def _breaks(element: Any, *, noted: bool) -> int:
    if noted:  # a break that was set is noted as well, where the next page begins
        return sum(1 for _ in element.iter(_RENDERED_BREAK))
    return sum(1 for each in element.iter(_BREAK) if each.get(qn("w:type")) == "page")
