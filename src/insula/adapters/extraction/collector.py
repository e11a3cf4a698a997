"""Gathers what a reader finds, and sends it on in pieces, within the limits of the order."""

import html
import re
from collections.abc import Iterable, Sequence

from insula.adapters.extraction.messages import (
    BATCH_BYTES,
    BLOCK_BYTES,
    Block,
    BlockType,
    Kind,
    Order,
    PageImage,
    Piece,
    Progress,
    send,
)

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\u00a0]+")
_TOLD = 10
"""Different things of which it is told that they were left out."""
TABLE_ROWS = 500
"""Rows of one TABLE block: a longer table becomes several."""


class Refused(Exception):
    """The document cannot be read, for a reason that people are told."""


class Collector:
    """The blocks and images of one document, on their way to the server."""

    def __init__(self, order: Order, descriptor: int) -> None:
        self.order = order
        self.blocks = 0
        self.left_out: dict[str, None] = {}
        """What the document has that was not read, in words, each once."""
        self._descriptor = descriptor
        self._waiting: list[Block] = []
        self._held = 0
        self._room = order.output
        self._title: int | None = None
        self._told = 0.0

    def title(self, text: str, page: int = 1) -> None:
        """Add a title; what follows stands under it."""
        self._title = None
        self._title = self.add("TITLE", text, page)

    def add(
        self, kind: BlockType, text: str, page: int = 1, markup: str | None = None
    ) -> int | None:
        """Add a block and return its id; one without text is left out."""
        content = clean(text)
        return self._add(kind, content, page, markup) if content else None

    def _add(self, kind: BlockType, content: str, page: int, markup: str | None) -> int:
        size = len(content.encode()) + len((markup or "").encode()) + BLOCK_BYTES
        self._room -= size
        if self._room < 0:
            raise Refused(
                f"The document's contents are over {self.order.output:,} bytes "
                "(INSULA_EXTRACT_OUTPUT); choose some of its pages with document_pages"
            )
        self.blocks += 1
        block = Block(self.blocks, kind, content, page, markup, self._title)
        self._waiting.append(block)
        self._held += size
        if self._held >= BATCH_BYTES:
            self.flush()
        return block.id

    def table(self, rows: Iterable[Sequence[str]], page: int = 1, header: bool = False) -> None:
        """Add a table: its cells as text, tabs between them, and as HTML."""
        waiting: list[list[str]] = []
        for row in rows:
            cells = [clean(cell) for cell in row]
            if any(cells):
                waiting.append(cells)
            if len(waiting) == TABLE_ROWS:
                self._add_table(waiting, page, header)
                waiting, header = [], False
        self._add_table(waiting, page, header)

    def _add_table(self, cells: list[list[str]], page: int, header: bool) -> None:
        if cells:
            text = "\n".join("\t".join(cell.replace("\n", " ") for cell in row) for row in cells)
            self._add("TABLE", text, page, table_markup(cells, header))

    def leave_out(self, what: str) -> None:
        """Note what the document has that is not read."""
        if len(self.left_out) < _TOLD:
            self.left_out[what] = None

    def image(self, image: PageImage) -> None:
        """Send an image."""
        self.flush()
        send(self._descriptor, Kind.IMAGE, image)

    def piece(self, data: bytes) -> None:
        """Send a piece of the PDF with the chosen pages; an empty one ends it."""
        self.flush()
        for at in range(0, len(data), BATCH_BYTES):
            send(self._descriptor, Kind.PIECE, Piece(data[at : at + BATCH_BYTES]))
        if not data:
            send(self._descriptor, Kind.PIECE, Piece(b""))

    def progress(self, done: int, of: int) -> None:
        """Say how much is done; by the hundredth at most."""
        share = min(1.0, done / max(1, of))
        if share - self._told >= 0.01:
            self._told = share
            self.flush()
            send(self._descriptor, Kind.PROGRESS, Progress(share))

    def flush(self) -> None:
        """Send what waits."""
        if self._waiting:
            send(self._descriptor, Kind.BLOCKS, self._waiting)
            self._waiting, self._held = [], 0


def clean(text: str) -> str:
    """Return a text that can be stored and shown: no control characters, no runs of spaces."""
    if not text.isprintable():
        text = _CONTROL.sub(
            "", text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n")
        )
    text = _SPACES.sub(" ", text)
    return "\n".join(line.strip() for line in text.split("\n")).strip()


def table_markup(rows: Sequence[Sequence[str]], header: bool) -> str:
    """Write a table as HTML."""
    parts = ["<table>"]
    for number, row in enumerate(rows):
        tag = "th" if header and number == 0 else "td"
        cells = "".join(f"<{tag}>{html.escape(cell, quote=False)}</{tag}>" for cell in row)
        parts.append(f"<tr>{cells}</tr>")
    return "".join([*parts, "</table>"])
