"""Hostile documents: each ends by itself, within its bounds, in words that name no library."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.adapters.extraction import documents, hostile
from tests.adapters.extraction.readings import LIMITS, MIB, read_by

from insula.adapters.extraction.extractor import ExtractionFailed, Extractor
from insula.adapters.extraction.messages import Done

pytestmark = pytest.mark.asyncio(loop_scope="module")

LETTER = [(50.0, 800.0, 11.0, "x")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def extractor() -> AsyncIterator[Extractor]:
    """One for all: each document has a reader of its own all the same."""
    async with Extractor(replace(LIMITS, seconds=20)) as opened:
        yield opened


async def outcome(extractor: Extractor, kind: str, data: bytes) -> str:
    """Have a document read; return why it was not, or nothing."""
    try:
        messages = await read_by(extractor, kind, data, images=True)
    except ExtractionFailed as failure:
        return str(failure)
    assert isinstance(messages[-1], Done)
    return ""


@pytest.mark.parametrize(
    ("kind", "make", "words"),
    [
        ("pdf", lambda: b"%PDF-1.7\nnothing", "no PDF"),
        ("pdf", lambda: documents.pdf(*[LETTER] * 5_000), "5,000 pages, more than 100"),
        ("pdf", lambda: documents.pdf_bomb(400 * MIB), "INSULA_EXTRACT"),
        ("pdf", lambda: hostile.looping_pages(2**31 - 1), ""),
        ("word", lambda: b"PK\x03\x04 nothing", "damaged"),
        ("word", lambda: documents.zip_bomb(140 * MIB), "unpacks to"),
        ("word", lambda: hostile.lying(documents.word(), "word/document.xml", 140 * MIB), ""),
        ("word", lambda: hostile.word_with(hostile.laughs()), "damaged"),
        ("word", lambda: hostile.archive_of(30_000), "more than 20,000"),
        ("word", documents.sheet, "no Word document"),
        ("sheet", lambda: hostile.replaced(documents.sheet(), "xl/a", b" " * 140 * MIB), "unpacks"),
        ("sheet", lambda: hostile.sheet_with(hostile.laughs()), "damaged"),
        ("sheet", documents.word, "no workbook"),
        ("slides", lambda: hostile.slides_with(hostile.laughs()), "damaged"),
        ("slides", documents.word, "no presentation"),
        ("picture", lambda: hostile.png(100_000, 100_000), "more than 100,000,000"),
        ("picture", lambda: documents.picture()[:60], "damaged"),
        ("mail", lambda: b"no headers here", "no headers"),
        ("text", lambda: b"word " * 400_000, "INSULA_EXTRACT_OUTPUT"),
        ("text", lambda: b"x" * 100 * MIB, "INSULA_EXTRACT"),
        ("table", lambda: b"x" * 100 * MIB, "INSULA_EXTRACT"),
        ("table", lambda: b"," * 100 * MIB, "INSULA_EXTRACT_MEMORY"),
        ("html", lambda: b"<p>" + b"word " * 10 * MIB, "INSULA_EXTRACT"),
        ("markdown", lambda: b"> " * MIB + b"deep", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_refused_says_why(
    extractor: Extractor, kind: str, make: Callable[[], bytes], words: str
) -> None:
    assert words in await outcome(extractor, kind, make())


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("pdf", lambda: hostile.page_of(b"0 0 1e9 1e9")),
        ("pdf", lambda: hostile.page_of(b"0 0 1000000000 1")),
        ("pdf", lambda: hostile.page_of(b"0 0 0 0")),
        ("pdf", lambda: hostile.page_of(b"5 5 -5 -5")),
        ("pdf", lambda: hostile.page_of(b"0 0 595 842", b"q " * MIB)),
        ("pdf", hostile.recursive_form),
        ("pdf", lambda: hostile.nested_objects(100_000)),
        ("word", lambda: hostile.nested_archives(4, MIB)),
        ("sheet", lambda: hostile.endless_rows(300_000)),
        ("sheet", hostile.wide_cells),
        ("picture", lambda: hostile.png(10_000, 10_000)),
        ("picture", hostile.looping_tiff),
        ("html", lambda: b"<div>" * 100_000 + b"deep"),
        ("html", lambda: b"<div>" * (50 * MIB // 5)),
        ("html", lambda: b"<table><tr>" + b"<td>" * 100_000),
        ("mail", lambda: hostile.mail_of(10_000)),
        ("mail", lambda: hostile.nested_mail(2_000)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_loops_nests_or_boasts_ends(
    extractor: Extractor, kind: str, make: Callable[[], bytes]
) -> None:
    """Read or refused: in either case in time, and the reader does not fall over."""
    why = await outcome(extractor, kind, make())
    assert "misbehave" not in why


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("word", lambda: hostile.wide_span(90_000_000)),
        ("word", lambda: hostile.high_cell(3_000)),
        ("mail", lambda: b"From: " + b"(" * 9_000 + b"\n\na"),
        ("mail", lambda: b"To: " + b", ".join([b"Somebody <a@b.test>"] * 20_000) + b"\n\na"),
        ("mail", lambda: b'From: "\nCc: =?utf-8?q?=22?= <a@[>\nContent-Type: ;\n\na'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_boasts_a_little_is_read(
    extractor: Extractor, kind: str, make: Callable[[], bytes]
) -> None:
    assert not await outcome(extractor, kind, make())


@pytest.mark.parametrize("make", [hostile.word_with, hostile.sheet_with, hostile.slides_with])
async def test_no_file_of_the_machine_is_reached(
    extractor: Extractor, make: Callable[[str], bytes]
) -> None:
    kind = make.__name__.removesuffix("_with")
    told = ""
    with suppress(ExtractionFailed):
        told = str(await read_by(extractor, kind, make(hostile.reaching("/etc/passwd"))))
    assert "root" not in told


KINDS = {
    "pdf": lambda: documents.pdf(LETTER),
    "word": documents.word,
    "sheet": documents.sheet,
    "slides": documents.slides,
    "html": lambda: b"<p>a</p>",
    "markdown": lambda: b"# a",
    "table": lambda: b"a,b\n1,2\n",
    "text": lambda: b"a",
    "mail": lambda: hostile.mail_of(2),
    "picture": documents.picture,
}


async def test_no_file_can_lie_about_its_type(extractor: Extractor) -> None:
    made = {kind: make() for kind, make in KINDS.items()}
    for claimed in KINDS:
        for kind, data in made.items():
            why = await outcome(extractor, claimed, data)
            assert "misbehave" not in why, (claimed, kind)


@pytest.mark.parametrize("kind", KINDS)
async def test_damage_anywhere_stays_in_the_document(extractor: Extractor, kind: str) -> None:
    chance = random.Random(kind)
    whole = KINDS[kind]()
    for _ in range(8):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        why = await outcome(extractor, kind, bytes(data))
        assert "misbehave" not in why
    assert not await outcome(extractor, kind, whole)
