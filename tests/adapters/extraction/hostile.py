"""Makes documents that mean harm: that grow, loop, nest and lie."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

from tests.adapters.extraction import documents

MIB = 2**20
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SLIDE = (
    "xmlns:p='http://schemas.openxmlformats.org/presentationml/2006/main' "
    "xmlns:a='http://schemas.openxmlformats.org/drawingml/2006/main'"
)


def replaced(document: bytes, name: str, data: bytes) -> bytes:
    """Return an office file with one part replaced, or added."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(document)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, data)
    return buffer.getvalue()


def lying(document: bytes, name: str, size: int) -> bytes:
    """Return an office file a part of which unpacks to ``size`` bytes and says that it has few."""
    data = replaced(document, name, b"<a>" + b" " * size + b"</a>")
    true = struct.pack("<I", size + 7)
    assert data.count(true) == 2  # in the archive's directory and before the part itself
    return data.replace(true, struct.pack("<I", 1000))


def laughs(levels: int = 12) -> str:
    """Return a document type whose last entity is ten to the power of ``levels`` words."""
    lines = ['<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, levels)]
    return f"<?xml version='1.0'?><!DOCTYPE x [{''.join(lines)}<!ENTITY z '&a{levels - 1};'>]>"


def reaching(path: str) -> str:
    """Return a document type whose entity is a file of the machine."""
    return f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY z SYSTEM 'file://{path}'>]>"


def word_with(doctype: str) -> bytes:
    """Make a Word document whose text is the entity ``z``."""
    text = f"<w:document xmlns:w='{_WORD}'><w:body><w:p><w:r><w:t>&z;</w:t></w:r></w:p></w:body>"
    return replaced(documents.word(), "word/document.xml", f"{doctype}{text}</w:document>".encode())


def sheet_with(doctype: str) -> bytes:
    """Make a workbook one cell of which is the entity ``z``."""
    cell = "<row r='1'><c r='A1' t='inlineStr'><is><t>&z;</t></is></c></row>"
    text = f"{doctype}<worksheet xmlns='{_SHEET}'><sheetData>{cell}</sheetData></worksheet>"
    return replaced(documents.sheet(), "xl/worksheets/sheet1.xml", text.encode())


def slides_with(doctype: str) -> bytes:
    """Make a presentation whose first slide has the entity ``z`` as its text."""
    shape = (
        "<p:sp><p:nvSpPr><p:cNvPr id='2' name='t'/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/>"
        "<p:txBody><a:bodyPr/><a:p><a:r><a:t>&z;</a:t></a:r></a:p></p:txBody></p:sp>"
    )
    group = "<p:nvGrpSpPr><p:cNvPr id='1' name=''/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr>"
    group += "<p:grpSpPr/>"
    tree = f"<p:cSld><p:spTree>{group}{shape}</p:spTree></p:cSld>"
    text = f"{doctype}<p:sld {_SLIDE}>{tree}</p:sld>"
    return replaced(documents.slides(), "ppt/slides/slide1.xml", text.encode())


def archive_of(parts: int) -> bytes:
    """Make a Word document of very many parts."""
    buffer = io.BytesIO(documents.word())
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(parts):
            archive.writestr(f"word/media/{number}", b"")
    return buffer.getvalue()


def nested_archives(levels: int, size: int) -> bytes:
    """Make a Word document that holds, as a picture, an archive of archives of nothing."""
    inner = b"0" * size
    for level in range(levels):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for number in range(10):
                archive.writestr(f"{level}-{number}.zip", inner)
        inner = buffer.getvalue()
    return replaced(documents.word(), "word/media/image1.png", inner)


def wide_span(columns: int) -> bytes:
    """Make a Word document with a cell that claims to reach over so many columns."""
    cell = f"<w:tc><w:tcPr><w:gridSpan w:val='{columns}'/></w:tcPr><w:p/></w:tc>"
    return documents.word_of(f"<w:tbl><w:tr>{cell}</w:tr></w:tbl>")


def high_cell(rows: int) -> bytes:
    """Make a Word document with a cell that reaches over so many rows."""
    first = "<w:tc><w:tcPr><w:vMerge w:val='restart'/></w:tcPr><w:p><w:r><w:t>a</w:t></w:r></w:p>"
    further = "<w:tr><w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p/></w:tc></w:tr>"
    return documents.word_of(f"<w:tbl><w:tr>{first}</w:tc></w:tr>{further * rows}</w:tbl>")


def endless_rows(rows: int) -> bytes:
    """Make a workbook of very many empty rows."""
    text = f"<worksheet xmlns='{_SHEET}'><sheetData>{'<row/>' * rows}</sheetData>"
    return replaced(documents.sheet(), "xl/worksheets/sheet1.xml", f"{text}</worksheet>".encode())


def wide_cells() -> bytes:
    """Make a workbook with one cell at the far end of the last row."""
    cell = "<row r='1048576'><c r='XFD1048576' t='inlineStr'><is><t>far</t></is></c></row>"
    text = f"<worksheet xmlns='{_SHEET}'><sheetData>{cell}</sheetData></worksheet>"
    return replaced(documents.sheet(), "xl/worksheets/sheet1.xml", text.encode())


def page_of(box: bytes, content: bytes = b"0 0 m 9 9 l S", more: bytes = b"") -> bytes:
    """Make a PDF of one page, with this box, this content and these further objects from 5 on."""
    return documents.assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [4 0 R] >>",
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
            b"<< /Type /Page /Parent 2 0 R /MediaBox [%s] /Contents 3 0 R "
            b"/Resources << /XObject << /F 5 0 R >> >> >>" % box,
            *([more] if more else []),
        ]
    )


def recursive_form() -> bytes:
    """Make a PDF whose page draws a form that draws itself, twice each time."""
    content = b"/F Do /F Do"
    form = (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Length %d "
        b"/Resources << /XObject << /F 5 0 R >> >> >>\nstream\n%s\nendstream"
    )
    return page_of(b"0 0 595 842", content, form % (len(content), content))


def looping_pages(count: int) -> bytes:
    """Make a PDF whose tree of pages holds itself, and says that it has very many."""
    return documents.assembled(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count %d /Kids [2 0 R 2 0 R] /Parent 2 0 R >>" % count,
        ]
    )


def nested_objects(depth: int) -> bytes:
    """Make a PDF with an array in an array, and so on."""
    return page_of(b"0 0 595 842", more=b"[" * depth + b"]" * depth)


def png(width: int, height: int) -> bytes:
    """Make a PNG that says it is so large, of a megabyte of nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def looping_tiff() -> bytes:
    """Make a TIFF whose second picture is followed by its first."""
    data = bytearray(documents.picture("TIFF"))
    first = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    return bytes(data)


def mail_of(parts: int) -> bytes:
    """Make a message of very many parts."""
    part = b"--x\nContent-Type: text/plain\nContent-Disposition: attachment; filename=a\n\na\n"
    head = b"Subject: s\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    return head + part * parts + b"--x--\n"


def nested_mail(depth: int) -> bytes:
    """Make a message in a message, and so on."""

    def heads() -> Iterator[bytes]:
        for level in range(depth):
            yield b"Content-Type: multipart/mixed; boundary=x%d\n\n--x%d\n" % (level, level)

    return b"Subject: s\nMIME-Version: 1.0\n" + b"".join(heads()) + b"Content-Type: text/plain\n\na"
