"""PDF: every letter that is shown, and no more time than there are letters."""

import io

import pypdfium2
import pytest
from tests.adapters.extraction.documents import assembled
from tests.adapters.extraction.readings import read_here

from insula.adapters.extraction import pdf
from insula.adapters.extraction.pdf import read_pdf

_FONT = b"/Type /Font /Subtype /Type1 /BaseFont /Helvetica"
_WHERE = b"/MediaBox [0 0 595 842] /Resources << /Font << /F1 5 0 R >> >>"


def stream(content: bytes, more: bytes = b"") -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (more, len(content), content)


def page(content: bytes, *further: bytes, font: bytes = b"", catalog: bytes = b"") -> bytes:
    """Make a PDF of one page; the further objects, from 6 on, are its annotations."""
    annotations = b" ".join(b"%d 0 R" % (6 + at) for at in range(len(further)))
    return assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog,
            b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
            stream(content),
            b"<< /Type /Page /Parent 2 0 R /Contents 3 0 R %s /Annots [%s] >>"
            % (_WHERE, annotations),
            b"<< %s %s >>" % (_FONT, font),
            *further,
        ]
    )


def test_letters_beyond_16_bits_are_read() -> None:
    table = (
        b"/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <00> <ff> "
        b"endcodespacerange 3 beginbfchar <41> <D83DDE00> <42> <D840DC00> <43> <D83D> endbfchar "
        b"endcmap end"
    )
    data = page(b"BT /F1 12 Tf 50 700 Td (xAyBzCw) Tj ET", stream(table), font=b"/ToUnicode 6 0 R")
    assert read_here(read_pdf, data).told == [("NARRATIVETEXT", "x\U0001f600y\U00020000zw")]


def test_what_was_filled_into_a_form_is_read_and_stays_a_form() -> None:
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (n) /V (Jane) /Rect [100 690 300 715] /F 4 "
        b"/AP << /N 7 0 R >> >>"
    )
    shown = stream(
        b"BT /F1 12 Tf 2 10 Td (Jane) Tj ET",
        b"/Type /XObject /Subtype /Form /BBox [0 0 200 25] " + _WHERE.partition(b"] ")[2],
    )
    form = b"/AcroForm << /Fields [6 0 R] >>"
    data = page(b"BT /F1 12 Tf 50 700 Td (Name:) Tj ET", field, shown, catalog=form)
    found = read_here(read_pdf, data, extract_pages=True)
    assert found.told == [("NARRATIVETEXT", "Name: Jane")]
    made = pypdfium2.PdfDocument(io.BytesIO(b"".join(found.pieces)))
    assert made[0].get_textpage().get_text_range() == "Name:"
    made.close()


def test_many_cells_in_a_line_are_text() -> None:
    lines = b"".join(b"1 0 0 1 0 %d Tm " % at + b"(x) Tj 2 0 Td " * 20_000 for at in (700, 600))
    found = read_here(read_pdf, page(b"BT /F1 0.5 Tf " + lines + b"ET"))
    assert [kind for kind, _ in found.told] == ["NARRATIVETEXT"] * 2
    assert sum(text.count("x") for _, text in found.told) == 40_000


def test_letters_that_are_left_out_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_CHARACTERS", 3)
    found = read_here(read_pdf, page(b"BT /F1 12 Tf 50 700 Td (abcdef) Tj ET"))
    assert found.told == [("NARRATIVETEXT", "abc")]
    assert list(found.left_out) == ["what follows the first 3 characters of page 1"]
