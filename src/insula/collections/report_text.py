"""Text for a report: fonts that have its letters, and Markdown as paragraphs, lists and tables."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token
from reportlab.lib import colors
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, HRFlowable, Paragraph, Preformatted, Spacer, Table

from insula.collections.report_room import COLUMNS_MAX, ROWS_MAX

INK = colors.HexColor("#1f2328")
FAINT = colors.HexColor("#6a737d")
LINE = colors.HexColor("#d0d7de")
SHADE = colors.HexColor("#f6f8fa")

TEXT_MAX = 20_000
"""Characters of one text that a report shows."""
PIECE_MAX = 1_200
"""Characters of one paragraph. A longer text is set in several: what lays a paragraph out takes far
longer for many characters than for the same ones in pieces, above all where it goes over pages."""
_LINE = 30
"""As how many characters the end of a line counts; a change of the type, as a third of that."""
CELL_MAX = 400
_HEAD_MAX = 80
BLOCKS_MAX = 500

_SYSTEM = Path("/usr/share/fonts/truetype/dejavu")
_NAMES = ("Report", "Report-Bold", "Report-Italic", "Report-BoldItalic")
_DEJAVU = ("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique")
_VERA = ("Vera", "VeraBd", "VeraIt", "VeraBI")
_ASIAN = {
    "STSong-Light": ((0x2E80, 0x9FFF), (0xF900, 0xFFEF)),
    "HYSMyeongJo-Medium": ((0xAC00, 0xD7A3),),
}


@lru_cache(1)
def _letters() -> frozenset[int]:
    """Register the fonts; return the characters that they have."""
    found = [_SYSTEM / f"DejaVu{name}.ttf" for name in _DEJAVU]
    # Without italics of its own, a family shows them upright.
    if found[0].is_file() and found[1].is_file():
        paths = [str(p if p.is_file() else found[n % 2]) for n, p in enumerate(found)]
    else:
        paths = [f"{name}.ttf" for name in _VERA]
    for name, path in zip(_NAMES, paths, strict=True):
        pdfmetrics.registerFont(TTFont(name, path))
    normal, bold, italic, both = _NAMES
    pdfmetrics.registerFontFamily(normal, normal, bold, italic, both)
    for name in _ASIAN:
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return frozenset(pdfmetrics.getFont(normal).face.charToGlyph)


@lru_cache(1)
def styles() -> dict[str, ParagraphStyle]:
    """Return the styles of a report by their names."""
    _letters()
    body = ParagraphStyle("body", fontName="Report", fontSize=9, leading=12.5, textColor=INK)
    return {
        "body": body,
        "small": ParagraphStyle("small", body, fontSize=7.5, leading=10, textColor=FAINT),
        "cell": ParagraphStyle("cell", body, fontSize=8, leading=10.5, wordWrap="LTR"),
        "head": ParagraphStyle("head", body, fontName="Report-Bold", fontSize=8, leading=10.5),
        "code": ParagraphStyle("code", body, fontSize=7.5, leading=10, backColor=SHADE),
        "title": ParagraphStyle("title", body, fontName="Report-Bold", fontSize=17, leading=22),
        "h2": ParagraphStyle(
            "h2",
            body,
            fontName="Report-Bold",
            fontSize=12,
            leading=16,
            spaceBefore=12,
            keepWithNext=1,
        ),
        "h3": ParagraphStyle(
            "h3",
            body,
            fontName="Report-Bold",
            fontSize=10,
            leading=13,
            spaceBefore=6,
            spaceAfter=3,
            keepWithNext=1,
        ),
    }


def shown(text: str, longest: int = TEXT_MAX) -> str:
    """Return a text as a paragraph takes it: cut, escaped, each letter in a font that has it."""
    _letters()
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return "".join(_run(font, part) for font, part in _runs(text))


def _run(font: str, part: str) -> str:
    return f'<font name="{font}">{escape(part)}</font>' if font else escape(part)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Divide a text by the font that each part needs; the empty one is the report's own."""
    letters, font, held = _letters(), "", ""
    for character in text:
        needed, written = _font_of(character, letters)
        if needed != font and held:
            yield font, held
            held = ""
        font, held = needed, held + written
    if held:
        yield font, held


def _font_of(character: str, letters: frozenset[int]) -> tuple[str, str]:
    code = ord(character)
    if character in "\n\t" or code in letters:
        return "", character
    for name, ranges in _ASIAN.items():
        if any(first <= code <= last for first, last in ranges):
            return name, character
    return "", "" if code < 32 else "?"


def paragraph(text: str, style: str = "body", longest: int = TEXT_MAX) -> Paragraph:
    """Make a paragraph of plain text; its line breaks stay."""
    return _paragraph(shown(text, longest).replace("\n", "<br/>"), styles()[style])


def plain(text: str) -> list[Flowable]:
    """Make paragraphs of plain text, which may be long."""
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX - 1] + "…"
    return [paragraph(piece.strip("\n")) for piece in _pieces(text)]


def _pieces(text: str) -> Iterator[str]:
    """Cut a text where a paragraph of it would be too long: between words, if there are any."""
    at = 0
    while at < len(text):
        end = min(_room_until(text, at), len(text))
        if end < len(text):
            gap = max(text.rfind(" ", at, end), text.rfind("\n", at, end))
            end = gap + 1 if gap > at else end
        yield text[at:end]
        at = end


def _room_until(text: str, at: int) -> int:
    """Return where a paragraph ends that begins at a place, were there no words."""
    room, end = PIECE_MAX, at
    while room > 0 and end < len(text):
        room -= _LINE if text[end] == "\n" else 1
        end += 1
    return end


def _paragraph(text: str, style: ParagraphStyle, bullet: str | None = None) -> Paragraph:
    """Make a paragraph whose neighbouring pieces of one look are one piece: each character that is
    escaped was one of its own, and what wraps them takes so much longer for many."""
    made = Paragraph(text, style, bulletText=bullet)
    pieces: list[Any] = []
    for piece in made.frags:
        if pieces and _look(pieces[-1]) == _look(piece) is not None:
            pieces[-1].text += piece.text
        else:
            pieces.append(piece)
    made.frags = pieces
    return made


def _look(piece: Any) -> dict[str, Any] | None:
    """Return how a piece of a paragraph is written, ``None`` for what is more than text."""
    look = {name: value for name, value in vars(piece).items() if name != "text"}
    return None if "lineBreak" in look or "cbDefn" in look else look


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: float, widths: Sequence[float] = ()
) -> Flowable:
    """Make a table of plain text whose head is repeated on every page."""
    columns = min(len(head), COLUMNS_MAX)
    body = [[paragraph(text, "head", _HEAD_MAX) for text in head[:columns]]]
    for row in rows[:ROWS_MAX]:
        cells = [*row[:columns], *[""] * (columns - len(row))]
        body.append([paragraph(text, "cell", CELL_MAX) for text in cells])
    shares = list(widths) or [1 / columns] * columns
    made = Table(
        body, [share * width for share in shares], repeatRows=1, splitInRow=1, hAlign="LEFT"
    )
    made.setStyle(
        [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LINEBELOW", (0, 0), (-1, -1), 0.5, LINE),
            ("BACKGROUND", (0, 0), (-1, 0), SHADE),
            ("TOPPADDING", (0, 0), (-1, -1), 3),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ]
    )
    return made


def markdown(text: str, width: float) -> list[Flowable]:
    """Turn Markdown into what a page takes; HTML in it stays text."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    return _Markdown(width).made(parser.parse(text[:TEXT_MAX]))[:BLOCKS_MAX]


class _Markdown:
    """Walks over the tokens of a text."""

    def __init__(self, width: float) -> None:
        self._width = width
        self._made: list[Flowable] = []
        self._lists: list[int | None] = []
        self._rows: list[list[str]] | None = None
        self._style = "body"
        self._bullet = ""

    def made(self, tokens: Sequence[Token]) -> list[Flowable]:
        for token in tokens:
            handle = getattr(self, f"_on_{token.type}", None)
            if handle is not None:
                handle(token)
        return self._made

    def _on_heading_open(self, token: Token) -> None:
        self._style = "h2" if token.tag in ("h1", "h2") else "h3"

    def _on_heading_close(self, _: Token) -> None:
        self._style = "body"

    def _on_bullet_list_open(self, _: Token) -> None:
        self._lists.append(None)

    def _on_ordered_list_open(self, token: Token) -> None:
        self._lists.append(int(token.attrGet("start") or 1))

    def _on_bullet_list_close(self, _: Token) -> None:
        self._lists.pop()

    _on_ordered_list_close = _on_bullet_list_close

    def _on_list_item_open(self, _: Token) -> None:
        number = self._lists[-1]
        self._bullet = "•" if number is None else f"{number}."
        if number is not None:
            self._lists[-1] = number + 1

    def _on_table_open(self, _: Token) -> None:
        self._rows = []

    def _on_tr_open(self, _: Token) -> None:
        if self._rows is not None:
            self._rows.append([])

    def _on_table_close(self, _: Token) -> None:
        if self._rows:
            self._made += [table(self._rows[0], self._rows[1:], self._width), Spacer(0, 4)]
        self._rows = None

    def _on_hr(self, _: Token) -> None:
        self._made.append(HRFlowable(width="100%", color=LINE, spaceBefore=4, spaceAfter=4))

    def _on_fence(self, token: Token) -> None:
        lines = [line[:110] for line in token.content.splitlines()[:200]]
        letters = _letters()
        plain = ["".join(_font_of(c, letters)[1] for c in line) for line in lines]
        self._made.append(Preformatted("\n".join(plain), styles()["code"]))

    _on_code_block = _on_fence

    def _on_inline(self, token: Token) -> None:
        if self._rows is not None:
            if self._rows:
                self._rows[-1].append(_plain(token.children or ()))
            return
        style = styles()[self._style]
        if self._lists:
            indent = 12 * min(len(self._lists), 10)
            style = ParagraphStyle("item", style, leftIndent=indent, bulletIndent=indent - 11)
        for text in _Inline().made(token.children or ()):
            self._made.append(_paragraph(text, style, self._bullet or None))
            self._bullet = ""
        if not self._lists:
            self._made.append(Spacer(0, 3))


_MARKS = {
    "strong_open": "<b>",
    "strong_close": "</b>",
    "em_open": "<i>",
    "em_close": "</i>",
    "softbreak": " ",
    "hardbreak": "<br/>",
}


class _Inline:
    """Writes what stands in one paragraph of Markdown, as as many as it is long."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._parts: list[str] = []
        self._open: list[str] = []
        self._room = PIECE_MAX

    def made(self, tokens: Sequence[Token]) -> list[str]:
        for token in tokens:
            if token.type in ("text", "code_inline", "html_inline", "image"):
                for piece in _pieces(token.content):
                    self._write(shown(piece), len(piece))
            elif token.type in _MARKS:
                self._mark(token.type, _MARKS[token.type])
        self._end()
        return self._made

    def _mark(self, kind: str, mark: str) -> None:
        if kind.endswith("_close"):
            self._open.pop()
        self._write(mark, _LINE if kind == "hardbreak" else _LINE // 3)
        if kind.endswith("_open"):
            self._open.append(mark)

    def _write(self, text: str, cost: int) -> None:
        if cost > self._room and not text.startswith("</"):
            self._end()
        self._parts.append(text)
        self._room -= cost

    def _end(self) -> None:
        closing = [mark.replace("<", "</") for mark in reversed(self._open)]
        self._made.append("".join([*self._parts, *closing]))
        self._parts, self._room = list(self._open), PIECE_MAX


def _plain(tokens: Sequence[Any]) -> str:
    return "".join(token.content or " " * (token.type == "softbreak") for token in tokens)
