"""Word: paragraphs by their styles, lists and tables, in their order."""

from typing import Any, BinaryIO

import docx
from docx.oxml.ns import qn
from docx.table import Table
from docx.text.paragraph import Paragraph

from insula.adapters.extraction.archives import open_archive
from insula.adapters.extraction.collector import Collector, Refused
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
    page = 1
    body = document.element.body
    count = len(body)
    for number, part in enumerate(document.iter_inner_content()):
        if isinstance(part, Table):
            rows = [[cell.text for cell in row.cells] for row in part.rows]
            found.table(rows, page)
        elif isinstance(part, Paragraph):
            page += _breaks(part)
            _add(part, page, found)
        found.progress(number + 1, count)


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


def _breaks(paragraph: Paragraph) -> int:
    element = paragraph._p
    breaks = sum(1 for each in element.iter(_BREAK) if each.get(qn("w:type")) == "page")
    return breaks or sum(1 for _ in element.iter(_RENDERED_BREAK))
