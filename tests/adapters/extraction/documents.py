"""Makes documents for tests, hostile ones among them; PDFs by hand, so that every byte is known."""

import io
import struct
import zipfile
import zlib

import docx
import openpyxl
import pptx
from docx.oxml import OxmlElement, parse_xml
from docx.oxml.ns import nsdecls
from PIL import Image

Text = tuple[float, float, float, str]
"""Where (from the lower left corner), how large, what."""


def pdf(*pages: list[Text], trailer: bytes = b"") -> bytes:
    """Make a PDF, a page for each list of texts."""
    bodies: list[bytes] = [b"", b""]
    kids = []
    for texts in pages:
        content = b"".join(
            b"BT /F1 %g Tf %g %g Td (%s) Tj ET\n" % (size, x, y, _escaped(text))
            for x, y, size, text in texts
        )
        bodies.append(b"<< /Length %d >>\nstream\n%sendstream" % (len(content), content))
        number = len(bodies) + 1
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
            b" >> >> >>" % (number - 1)
        )
        kids.append(b"%d 0 R" % number)
    bodies[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    bodies[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    return assembled(bodies, trailer)


def _escaped(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def assembled(bodies: list[bytes], trailer: bytes = b"") -> bytes:
    """Put objects together, the first of them the catalogue, with their cross-references."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\n" % (len(bodies) + 1, trailer)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)


def pdf_bomb(size: int) -> bytes:
    """Make a PDF whose one page's content grows to ``size`` bytes, nested twice."""
    squeezed = zlib.compress(zlib.compress(b"0 0 m " * (size // 6), 9), 9)
    stream = b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s\nendstream"
    return assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
            stream % (len(squeezed), squeezed),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 3 0 R >>",
        ]
    )


def word() -> bytes:
    """Make a Word document."""
    document = docx.Document()
    document.add_heading("Report", 0)
    document.add_paragraph("All is well.")
    document.add_paragraph("apples", style="List Bullet")
    table = document.add_table(2, 2)
    for place, text in enumerate(("fruit", "count", "apple & pear", "3")):
        table.cell(place // 2, place % 2).text = text
    document.add_page_break()
    document.add_heading("Second", 1)
    document.add_picture(io.BytesIO(picture()))
    return _saved(document)


def pages_of_word(count: int, *, noted: bool) -> bytes:
    """Make a Word document of some pages; ``noted``: as Word stores it, which has laid it out."""
    document = docx.Document()
    for number in range(1, count + 1):
        run = document.add_paragraph().add_run()
        if noted and number > 1:
            run._r.append(OxmlElement("w:lastRenderedPageBreak"))
        run.add_text(f"page {number}")
        if number < count:
            document.add_page_break()
    return _saved(document)


def word_of(*parts: str) -> bytes:
    """Make a Word document of these parts, in the elements of Word."""
    document = docx.Document()
    for part in parts:
        place = len(document.element.body) - 1
        document.element.body.insert(place, parse_xml(part.replace(">", f" {nsdecls('w')}>", 1)))
    return _saved(document)


def sheet(rows: list[list[object]] | None = None) -> bytes:
    """Make a workbook of one sheet."""
    book = openpyxl.Workbook()
    book.active.title = "Sales"
    for row in rows or [["fruit", "count"], ["apple", 3], ["pear", 2.5], [None, None], ["", True]]:
        book.active.append(row)
    return _saved(book)


def slides() -> bytes:
    """Make a presentation of two slides."""
    made = pptx.Presentation()
    for title in ("First", "Second"):
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = "one\ntwo"
    slide.notes_slide.notes_text_frame.text = "Say hello"
    return _saved(made)


def picture(kind: str = "PNG", size: tuple[int, int] = (60, 40)) -> bytes:
    """Make an image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def picture_bomb() -> bytes:
    """Make a PNG that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zip_bomb(size: int, name: str = "word/document.xml", lie: int | None = None) -> bytes:
    """Make a Word document a part of which unpacks to ``size`` bytes; ``lie`` is what it says."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(word())) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
        with new.open(name, "w") as part:
            part.write(b"<w:document xmlns:w='w'>")
            for _ in range(size // 2**20):
                part.write(b" " * 2**20)
            part.write(b"</w:document>")
    data = buffer.getvalue()
    return data if lie is None else data.replace(struct.pack("<I", size), struct.pack("<I", lie))


def entity_bomb() -> bytes:
    """Make a Word document whose text is a billion laughs."""
    lines = ['<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)]
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    text = (
        f"<?xml version='1.0'?><!DOCTYPE w:document [{''.join(lines)}]>"
        f"<w:document xmlns:w='{space}'><w:body><w:p><w:r><w:t>&a11;</w:t></w:r></w:p></w:body>"
        "</w:document>"
    )
    return with_part("word/document.xml", text.encode())


def with_part(name: str, data: bytes) -> bytes:
    """Make a Word document with one part replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(word())) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, data if entry == name else old.read(entry))
    return buffer.getvalue()


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]  # each of these libraries' documents has it
    return buffer.getvalue()
