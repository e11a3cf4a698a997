"""HTML and Markdown: titles, paragraphs, lists, tables, in the order of the page."""

import re
from typing import Any, BinaryIO

import lxml.html
from lxml import etree
from markdown_it import MarkdownIt

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.text import decoded

_TITLES = frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "title"))
_HIDDEN = frozenset(
    ("script", "style", "noscript", "template", "svg", "iframe", "object", "select", "meta", "link")
)
_PARTS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "center", "dd", "div", "dl", "dt"),
        *("fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend"),
        *("main", "nav", "ol", "p", "pre", "section", "ul", "li", "table", "tr", "td", "th"),
        *("tbody", "thead", "caption", "details", "summary", "head", *_TITLES),
    )
)
_DEPTH = 400
_DECLARED = re.compile(rb"<meta\s[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I)
_HEAD = 4_096


def read_html(file: BinaryIO, found: Collector) -> None:
    """Read an HTML page."""
    data = file.read()
    declared = _DECLARED.search(data[:_HEAD])
    charset = "cp1252" if declared is None else declared[1].decode("ascii", "replace")
    add_html(decoded(data, charset), found)


def read_markdown(file: BinaryIO, found: Collector) -> None:
    """Read Markdown, as the page that it describes."""
    render = MarkdownIt("commonmark", {"html": False, "maxNesting": 100}).enable("table").render
    text = decoded(file.read())
    if text.startswith("---\n") and (end := text.find("\n---\n", 4)) > 0:
        text = text[end + 5 :]  # its front matter is for programs
    add_html(render(text), found)


def add_html(text: str, found: Collector, page: int = 1) -> None:
    """Add what stands on a page."""
    if not text.strip():
        return
    # Without ``huge_tree`` a text of 10 MiB is left out and nobody is told; memory is bounded here.
    parser = lxml.html.HTMLParser(
        no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    try:
        tree = lxml.html.document_fromstring(text.encode("utf-8", "replace").decode(), parser)
    except etree.ParserError as error:  # nothing but comments, say
        if parser.error_log.filter_from_fatals():
            raise Refused("The page cannot be read as HTML") from error
        return
    except (etree.XMLSyntaxError, ValueError, RecursionError) as error:
        raise Refused("The page cannot be read as HTML") from error
    if parser.error_log.filter_from_fatals():
        found.leave_out("what follows elements that nest too deeply")
    _Page(found, page).walk(tree)


class _Page:
    """Walks a page once; text that belongs together gathers until a part of the page ends."""

    def __init__(self, found: Collector, page: int) -> None:
        self._found = found
        self._page = page
        self._text: list[str] = []
        self._kind: Any = "NARRATIVETEXT"

    def walk(self, element: Any, depth: int = 0, *, kept: bool = False) -> None:
        """Add what stands in an element. With ``kept`` line breaks of the source are breaks."""
        tag = element.tag if isinstance(element.tag, str) else ""
        if tag in _HIDDEN or not tag:
            return
        if depth > _DEPTH:
            self._text.append(_text_in(element))
            return
        if tag == "table" and not element.xpath(".//table") and self._table(element):
            return
        if tag == "br":
            self._text.append("\n")
            return
        parted = tag in _PARTS
        before = self._kind
        if parted:
            self._end()
            self._kind = _kind(tag, before)
        kept = kept or tag == "pre"
        self._text.append(_flat(element.text, kept=kept))
        for child in element:
            self.walk(child, depth + 1, kept=kept)
            self._text.append(_flat(child.tail, kept=kept))
        if parted:
            self._end()
            self._kind = before

    def _table(self, table: Any) -> bool:
        """Add a table; say whether it is one: some have no rows of cells."""
        rows = [[_text_in(cell) for cell in row.iter("td", "th")] for row in table.iter("tr")]
        if not any(rows):
            return False
        self._end()
        for caption in table.iter("caption"):
            self._found.add("NARRATIVETEXT", _text_in(caption), self._page)
        header = next(table.iter("th"), None) is not None
        self._found.table(rows, self._page, header=header)
        return True

    def _end(self) -> None:
        text = "".join(self._text).strip()
        self._text = []
        if not text:
            return
        if self._kind == "TITLE":
            self._found.title(text, self._page)
        else:
            self._found.add(self._kind, text, self._page)


def _kind(tag: str, before: str) -> str:
    if tag in _TITLES:
        return "TITLE"
    if tag == "li":
        return "LISTITEM"
    if tag == "footer":
        return "FOOTER"
    return before if before in ("LISTITEM", "FOOTER") and tag in ("p", "div") else "NARRATIVETEXT"


def _flat(text: str | None, *, kept: bool) -> str:
    """Line breaks of the source mean nothing, but in ``pre``."""
    if not text:
        return ""
    return text if kept else text.replace("\n", " ").replace("\r", " ")


def _text_in(element: Any) -> str:
    """Return what is shown of an element, in one line."""
    pieces: list[str] = []
    walk = etree.iterwalk(element, events=("start", "end"))
    for event, each in walk:
        tag = each.tag if isinstance(each.tag, str) else ""
        gap = " " if tag in _PARTS or tag == "br" else ""
        if event == "end":
            pieces += [gap, (each.tail or "") if each is not element else ""]
        elif tag in _HIDDEN or not tag:
            walk.skip_subtree()
        else:
            pieces += [gap, each.text or ""]
    return " ".join("".join(pieces).split())
