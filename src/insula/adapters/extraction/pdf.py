"""PDF, by pdfium: text with its layout, pages as images, chosen pages as a document."""

import ctypes
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pypdfium2
import pypdfium2.raw as pdfium

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.layout import Character, add_page
from insula.adapters.extraction.pages import chosen, read_of
from insula.adapters.extraction.pictures import LONGEST, encoded

_SCALE = 2.0
"""Pixels for each point: 144 for an inch."""
_SMALLEST_SIDE = 1.0
_CHARACTERS = 200_000
"""Of one page."""
_NOWHERE: list[ctypes.c_double | float] = [0.0, 0.0, 0.0, 0.0]


def prepare() -> None:
    """Have pdfium ready, and the memory for the one callback that writing a document takes."""
    document = pypdfium2.PdfDocument.new()
    document.new_page(72, 72)
    document.save(io.BytesIO())
    document.close()


def read_pdf(file: BinaryIO, found: Collector) -> str:
    """Read a PDF; return what is to be said about it."""
    document = _opened(file)
    pages = read_of(found.order, len(document))
    order = found.order
    steps = len(pages) * (order.contents + order.images) + order.extract_pages
    done = 0
    if order.extract_pages:  # before its forms are changed
        _add_pages(document, chosen(order, len(document)), found)
        found.progress(done := 1, steps)
    if order.contents:
        for page in pages:
            _add_text(document, page, found)
            found.progress(done := done + 1, steps)
    written = found.blocks
    if order.images:
        for page in pages:
            _add_image(document, page, found)
            found.progress(done := done + 1, steps)
    if order.contents and not written:
        return "The document has no text: its pages are only images"
    return ""


def _opened(file: BinaryIO) -> Any:
    data = file.read()
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            message = "The document is protected with a password; save it without one"
            raise Refused(message) from error
        raise Refused("The file is damaged: it is no PDF that can be read") from error


def _page(document: Any, number: int) -> Any:
    try:
        return document[number - 1]
    except pypdfium2.PdfiumError as error:
        raise Refused(f"Page {number} is damaged and cannot be read") from error


def _flat(document: Any, number: int) -> Any:
    """Return a page on which what was filled into a form stands as any other text."""
    page = _page(document, number)
    if document.get_formtype() == pdfium.FORMTYPE_NONE:
        return page
    if pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY) == pdfium.FLATTEN_SUCCESS:
        page.close()
        page = _page(document, number)
    return page


def _add_text(document: Any, number: int, found: Collector) -> None:
    page = _flat(document, number)
    try:
        text = page.get_textpage()
    except pypdfium2.PdfiumError as error:
        page.close()
        raise Refused(f"The text of page {number} is damaged and cannot be read") from error
    try:
        add_page(_characters(text), number, found)
        if pdfium.FPDFText_CountChars(text.raw) > _CHARACTERS:
            found.leave_out(f"what follows the first {_CHARACTERS:,} characters of page {number:,}")
    finally:
        text.close()
        page.close()


def _characters(text: Any) -> list[Character]:
    box = (ctypes.c_double * 4)()  # left, right, bottom, top
    sides = [ctypes.byref(ctypes.c_double.from_buffer(box, 8 * number)) for number in range(4)]
    raw, make = text.raw, Character._make
    box_of, size_of = pdfium.FPDFText_GetCharBox, pdfium.FPDFText_GetFontSize
    characters = []
    for at, code in _codes(raw):
        if not box_of(raw, at, *sides):
            box[:] = _NOWHERE
        characters.append(make((chr(code), *box, size_of(raw, at))))
    return characters


def _codes(raw: Any) -> Iterator[tuple[int, int]]:
    """Give what stands for a character, with its place; what lies beyond 16 bits comes in two."""
    code_of = pdfium.FPDFText_GetUnicode
    high = 0
    for at in range(min(pdfium.FPDFText_CountChars(raw), _CHARACTERS)):
        code = code_of(raw, at)
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((high - 0xD800) << 10) + code - 0xDC00 if high else 0
        high = 0
        if 0 < code < 0x110000:
            yield at, code


def _add_image(document: Any, number: int, found: Collector) -> None:
    page = _page(document, number)
    try:
        width, height = page.get_size()
        longest = max(width, height, _SMALLEST_SIDE)
        # In the order and width of pixels that a JPEG is made from: nothing is copied in between.
        bitmap = page.render(
            scale=min(_SCALE, LONGEST / longest),
            may_draw_forms=False,
            rev_byteorder=True,
            prefer_bgrx=True,
        )
        try:
            found.image(encoded(bitmap.to_pil(), number))
        finally:
            bitmap.close()
    except (pypdfium2.PdfiumError, ValueError, RuntimeError) as error:
        raise Refused(f"Page {number} cannot be drawn") from error
    finally:
        page.close()


def _add_pages(document: Any, pages: list[int], found: Collector) -> None:
    made = pypdfium2.PdfDocument.new()
    try:
        made.import_pages(document, [page - 1 for page in pages])
        buffer = io.BytesIO()
        made.save(buffer)
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise Refused("The chosen pages cannot be written as a PDF") from error
    finally:
        made.close()
    found.piece(buffer.getvalue())
    found.piece(b"")
