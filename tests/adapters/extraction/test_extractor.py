"""Documents read by real processes behind real walls: what comes out."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest
from PIL import Image
from tests.adapters.extraction import documents
from tests.adapters.extraction.readings import LIMITS, blocks, order, read, read_by, told

from insula.adapters.extraction import extractor as module
from insula.adapters.extraction.extractor import ExtractionFailed, Extractor
from insula.adapters.extraction.forker import Forker
from insula.adapters.extraction.kinds import kind_of, refusal
from insula.adapters.extraction.messages import Done, PageImage, Piece, Progress


def test_kinds_are_told_by_the_media_type() -> None:
    assert kind_of("application/pdf") == "pdf"
    assert kind_of("text/x-anything") == "text"
    assert kind_of("application/zip") is None
    assert "old office file" in refusal("application/x-ole-storage")
    assert "application/zip" in refusal("application/zip")


async def test_every_wall_stands() -> None:
    messages = await read("text", b"a")
    assert messages[-1] == Done("", [])


async def test_text() -> None:
    text = "\ufeffHello\r\nthere\n\n- one\n- two\n  more\n\n\x00ende\x07"
    assert await told("text", text.encode()) == [
        ("NARRATIVETEXT", "Hello\nthere"),
        ("LISTITEM", "one"),
        ("LISTITEM", "two more"),
        ("NARRATIVETEXT", "ende"),
    ]
    assert await told("text", "naïve".encode("cp1252")) == [("NARRATIVETEXT", "naïve")]
    assert await told("text", "größe".encode("utf-16")) == [("NARRATIVETEXT", "größe")]


async def test_tables_of_values() -> None:
    (block,) = await blocks("table", b"a;b\n1;<2>\n")
    assert (block.type, block.content) == ("TABLE", "a\tb\n1\t<2>")
    assert block.html == (
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>&lt;2&gt;</td></tr></table>"
    )
    many = await blocks("table", b"n\n" + b"".join(b"%d\n" % n for n in range(1200)))
    assert len(many) == 3
    assert many[-1].content.endswith("1199")


PAGE = """<html><head><title>T</title><script>evil()</script></head><body>
<h1>A <b>b</b></h1>text
<p>para<br>two</p><ul><li>x<li>y</ul><table><tr><th>a<td>b &amp; c</table><!-- no --></body>"""


async def test_html_and_markdown() -> None:
    assert await told("html", PAGE.encode()) == [
        ("TITLE", "T"),
        ("TITLE", "A b"),
        ("NARRATIVETEXT", "text"),
        ("NARRATIVETEXT", "para\ntwo"),
        ("LISTITEM", "x"),
        ("LISTITEM", "y"),
        ("TABLE", "a\tb & c"),
    ]
    marked = b"---\nsecret: 1\n---\n# T\n\nsome *text*\n\n1. a\n\n|x|y|\n|-|-|\n|1|2|\n"
    found = await blocks("markdown", marked)
    assert [block.type for block in found] == ["TITLE", "NARRATIVETEXT", "LISTITEM", "TABLE"]
    assert [block.parent for block in found] == [None, 1, 1, 1]


async def test_mail() -> None:
    message = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nFrom: a@b.c\nTo: d@e.f\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/html; charset=koi8-r"
        b"\n\n<p>Hello</p>\n--x\nContent-Type: application/pdf\n"
        b"Content-Disposition: attachment; filename=a.pdf\n\nx\n--x--\n"
    )
    assert await told("mail", message) == [
        ("TITLE", "Grüße"),
        ("HEADER", "From: a@b.c"),
        ("HEADER", "To: d@e.f"),
        ("NARRATIVETEXT", "Hello"),
        ("TEXT", "Attachment: a.pdf"),
    ]


def parts(boundary: bytes, *parts: bytes, kind: bytes = b"mixed") -> bytes:
    mark = b"--" + boundary
    head = b"Content-Type: multipart/" + kind + b"; boundary=" + boundary + b"\n\n"
    return head + b"".join(mark + b"\n" + part + b"\n" for part in parts) + mark + b"--\n"


async def test_all_texts_of_a_mail_in_their_order() -> None:
    plain = b"Content-Type: text/plain\n\n"
    forms = parts(b"a", plain + b" ", b"Content-Type: text/html\n\n<p>One</p>", kind=b"alternative")
    picture = b"Content-Type: image/png\nContent-Disposition: inline; filename=i.png\n\n"
    notes = b"Content-Disposition: attachment; filename=n.txt\n" + plain + b"not shown"
    inner = parts(b"b", forms, picture, plain + b"Two", notes)
    whole = parts(b"c", inner, b"Content-Type: application/pgp-signature\n\nx", kind=b"signed")
    head = "Subject: Grüße\nFrom: <\nTo: :;:;\nMIME-Version: 1.0\n".encode()
    assert await told("mail", head + whole) == [
        ("TITLE", "Grüße"),
        ("HEADER", "From: <"),
        ("HEADER", "To: :;:;"),
        ("NARRATIVETEXT", "One"),
        ("TEXT", "Attachment: i.png"),
        ("NARRATIVETEXT", "Two"),
        ("TEXT", "Attachment: n.txt"),
        ("TEXT", "Attachment: application/pgp-signature"),
    ]


@pytest.mark.parametrize("noted", [False, True])
async def test_pages_of_word(noted: bool) -> None:
    data = documents.pages_of_word(3, noted=noted)

    async def found(**asked: Any) -> list[tuple[int, str]]:
        return [(block.page, block.content) for block in await blocks("word", data, **asked)]

    assert await found() == [(1, "page 1"), (2, "page 2"), (3, "page 3")]
    assert await found(pages=[3, 1]) == [(3, "page 3"), (1, "page 1")]
    assert await found(max_pages=2) == [(1, "page 1"), (2, "page 2")]
    with pytest.raises(ExtractionFailed, match="3 pages"):
        await read("word", data, pages=[9])


async def test_word_with_its_picture() -> None:
    messages = await read("word", documents.word(), images=True)
    found = [block for message in messages if isinstance(message, list) for block in message]
    assert [(block.type, block.content, block.page) for block in found] == [
        ("TITLE", "Report", 1),
        ("NARRATIVETEXT", "All is well.", 1),
        ("LISTITEM", "apples", 1),
        ("TABLE", "fruit\tcount\napple & pear\t3", 1),
        ("TITLE", "Second", 2),
    ]
    (image,) = [message for message in messages if isinstance(message, PageImage)]
    assert (image.width, image.height, image.type) == (60, 40, "image/jpeg")


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


async def test_all_text_of_word_is_read_wherever_it_stands() -> None:
    held = f"<w:sdt><w:sdtContent><w:p>{run('in a control')}</w:p></w:sdtContent></w:sdt>"
    line = (
        f"<w:sdt><w:sdtContent>{run('a')}</w:sdtContent></w:sdt><w:ins>{run(' b')}</w:ins>"
        f"<w:smartTag>{run(' c')}</w:smartTag><w:fldSimple>{run(' d')}</w:fldSimple>"
        f"<w:hyperlink>{run(' e')}</w:hyperlink><w:del><w:r><w:delText>f</w:delText></w:r></w:del>"
        f"<w:moveFrom>{run('g')}</w:moveFrom><w:r><w:tab/><w:t>h</w:t><w:br/></w:r>"
    )
    box = f"<w:pict><w:txbxContent><w:p>{run('in a box')}</w:p></w:txbxContent></w:pict>"
    inner = f"<w:tbl><w:tr><w:tc><w:p>{run('inner')}</w:p></w:tc></w:tr></w:tbl>"
    wide = "<w:tcPr><w:gridSpan w:val='2'/></w:tcPr>"
    table = (
        f"<w:tbl><w:tr><w:tc><w:p>{run('outer')}</w:p>{inner}<w:p/></w:tc><w:tc>{held}</w:tc></w:tr>"
        f"<w:sdt><w:sdtContent><w:tr><w:tc>{wide}<w:p>{run('x')}</w:p></w:tc></w:tr></w:sdtContent>"
        "</w:sdt></w:tbl>"
    )
    data = documents.word_of(
        held, f"<w:p>{line}</w:p>", f"<w:p>{run('out')}<w:r>{box}</w:r></w:p>", table
    )
    assert await told("word", data) == [
        ("NARRATIVETEXT", "in a control"),
        ("NARRATIVETEXT", "a b c d e h"),
        ("NARRATIVETEXT", "out"),
        ("NARRATIVETEXT", "in a box"),
        ("TABLE", "outer inner\tin a control\nx\tx"),
    ]


async def test_sheets_and_slides() -> None:
    assert await told("sheet", documents.sheet()) == [
        ("TITLE", "Sales"),
        ("TABLE", "fruit\tcount\napple\t3\npear\t2.5\n\tTRUE"),
    ]
    found = await told("slides", documents.slides(), pages=[2])
    assert found == [
        ("TITLE", "Second"),
        ("LISTITEM", "one"),
        ("LISTITEM", "two"),
        ("TEXT", "Say hello"),
    ]


LETTER = [
    (50.0, 800.0, 20.0, "Report (final)"),
    (50.0, 770.0, 11.0, "This is the first line of a para-"),
    (50.0, 756.0, 11.0, "graph that goes on."),
    (50.0, 700.0, 11.0, "Name"),
    (200.0, 700.0, 11.0, "Count"),
    (50.0, 686.0, 11.0, "apple"),
    (200.0, 686.0, 11.0, "3"),
    (50.0, 640.0, 11.0, "1. an item"),
    (50.0, 600.0, 11.0, "The end."),
]


async def test_a_pdf_is_laid_out() -> None:
    assert await told("pdf", documents.pdf(LETTER)) == [
        ("TITLE", "Report (final)"),
        ("NARRATIVETEXT", "This is the first line of a paragraph that goes on."),
        ("TABLE", "Name\tCount\napple\t3"),
        ("LISTITEM", "an item"),
        ("NARRATIVETEXT", "The end."),
    ]


async def test_chosen_pages_of_a_pdf() -> None:
    pages = [[(50.0, 800.0, 12.0, f"page {n}")] for n in range(1, 7)]
    messages = await read(
        "pdf", documents.pdf(*pages), images=True, extract_pages=True, pages=[5, 2, 2, 99]
    )
    found = [block for message in messages if isinstance(message, list) for block in message]
    assert [(block.content, block.page) for block in found] == [("page 5", 5), ("page 2", 2)]
    images = [message for message in messages if isinstance(message, PageImage)]
    assert [image.page for image in images] == [5, 2]
    drawn = Image.open(io.BytesIO(images[0].data))
    assert drawn.size == (images[0].width, images[0].height) == (1190, 1684)
    made = b"".join(message.data for message in messages if isinstance(message, Piece))
    assert await told("pdf", made) == [("NARRATIVETEXT", "page 5"), ("NARRATIVETEXT", "page 2")]
    shares = [message.done for message in messages if isinstance(message, Progress)]
    assert shares == sorted(shares)
    assert isinstance(messages[-1], Done)


async def test_a_pdf_without_text_says_so() -> None:
    messages = await read("pdf", documents.pdf([]))
    assert messages == [Progress(1.0), Done("The document has no text: its pages are only images")]


async def test_pictures() -> None:
    messages = await read("picture", documents.picture("WEBP", (3000, 1000)), images=True)
    (image,) = [message for message in messages if isinstance(message, PageImage)]
    assert (image.page, image.width, image.height) == (1, 2000, 667)


async def test_time_is_limited() -> None:
    data = documents.pdf(*[LETTER] * 100)
    with pytest.raises(ExtractionFailed, match="INSULA_EXTRACT_SECONDS"):
        await read("pdf", data, replace(LIMITS, seconds=0.1), images=True)


async def test_mail_in_8_bits() -> None:
    head = b"From: a@b.test\r\nSubject: Hi\r\n"
    for more in (b"", b"Content-Type: text/plain; charset=iso-8859-1\r\n"):
        data = head + more + "\r\nGrüße".encode("cp1252")
        assert ("NARRATIVETEXT", "Grüße") in await told("mail", data)
    assert ("NARRATIVETEXT", "Grüße") in await told("mail", head + "\r\nGrüße".encode())


class Flooding:
    """A reader of which there is always something to take."""

    def tell(self, data: bytes) -> None:
        """Be told."""

    async def receive(self) -> Progress:
        return Progress(0.5)

    async def end(self) -> None:
        """End."""


async def test_time_is_limited_of_one_that_is_never_waited_for() -> None:
    async def reader(*_: object) -> Flooding:
        return Flooding()

    extractor = Extractor(replace(LIMITS, seconds=0.05))
    extractor._reader = reader  # type: ignore[method-assign, assignment]  # no process
    with pytest.raises(ExtractionFailed, match="INSULA_EXTRACT_SECONDS"):
        await read_by(extractor, "text", b"a")


async def test_a_document_that_cannot_be_opened_leaves_no_end_behind(monkeypatch) -> None:
    @asynccontextmanager
    async def missing() -> AsyncIterator[BinaryIO]:
        raise FileNotFoundError
        yield io.BytesIO()

    stopped = asyncio.Event()
    extractor = Extractor(LIMITS)
    extractor._forker = cast("Forker", SimpleNamespace(stop=stopped.set, stopped=False))
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.05)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            async with extractor.read(order("text", 1), missing()):
                pass
    assert extractor._rest is not None
    extractor._rest.cancel()  # as the next document does
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await stopped.wait()
