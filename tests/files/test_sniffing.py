"""Types told by the content, and what a field's list of types admits."""

import io
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.files.sniffing import HEAD_BYTES, admits, sniff

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def _zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.txt", "a")
    return made.getvalue()


@pytest.mark.parametrize(
    ("head", "name", "mimetype"),
    [
        (PNG, "picture.txt", "image/png"),
        (b"%PDF-1.7\n", "x", "application/pdf"),
        (b"hello", "x", "text/plain"),
        (b"hello", "x.png", "text/plain"),
        (b"a,b\n1,2", "x.CSV", "text/csv"),
        (b'{"a": 1}', "x.json", "application/json"),
        (b"# A", "x.md", "text/markdown"),
        (b"<!DOCTYPE html><p>", "x.txt", "text/html"),
        (b"  <!-- c --><html>", "x.md", "text/html"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x">', "x.png", "image/svg+xml"),
        ("ä".encode()[:1], "x.txt", "text/plain"),
        (b"\xff\xfe\x00", "x.txt", "application/octet-stream"),
        (b"a\0b", "x.txt", "application/octet-stream"),
        ("Größe;Preis\n1;2 €\n".encode("cp1252"), "x.csv", "text/csv"),
        ("Größe\tPreis\n".encode("utf-16"), "x.tsv", "text/tab-separated-values"),
        ("Größe".encode("utf-16-be"), "x.txt", "application/octet-stream"),
        (b"\xfe\xff" + "Größe".encode("utf-16-be"), "x.txt", "text/plain"),
        ("<!doctype html><p>ö".encode("utf-16"), "x.txt", "text/html"),
        ("<html><p>ö".encode("cp1252"), "x", "text/html"),
        (b"\xef\xbb\xbf<html>", "x", "text/html"),
        ("<svg xmlns='x'>".encode("utf-16"), "x.txt", "image/svg+xml"),
        ("Subject: Grüße\n\nHallo".encode("cp1252"), "x.eml", "message/rfc822"),
        ("ä€".encode("cp1252") * 50, "x.txt", "application/octet-stream"),
        (b"abc \x81 def", "x.txt", "application/octet-stream"),
        (b"abc \xe4 \x01", "x.txt", "application/octet-stream"),
        (b"\xff\xfea\0\x01\0", "x.txt", "application/octet-stream"),
        (b"\xff\xfe\0\xd8a\0", "x.txt", "application/octet-stream"),
        (b"\xff\xfe" + b"\x80\x03" * 9, "x.txt", "application/octet-stream"),
        (b"", "x", "text/plain"),
        (_zip(), "x.zip", "application/zip"),
        (
            _zip(),
            "x.docx",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
    ],
)
def test_sniffing(head: bytes, name: str, mimetype: str) -> None:
    assert sniff(head, name) == mimetype


@pytest.mark.parametrize(
    ("start", "end", "mimetype"),
    [
        (b"", b"# Title", "text/markdown"),
        (b"", b"<!-- not closed <html>", "text/markdown"),
        (b"", b"<html>", "text/html"),
        (b"", b"<svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?>\n", b"# Title", "text/markdown"),
        (b"<?xml version='1.0'?>\n", b"<!DOCTYPE svg PUBLIC 'x'>\n<svg>", "image/svg+xml"),
    ],
)
@pytest.mark.parametrize("comment", [b"<!-- x -->\n", b"<!---->", b"\n <!--\n--> "])
def test_many_comments_before_the_first_tag(
    comment: bytes, start: bytes, end: bytes, mimetype: str
) -> None:
    """Were they divided in one way after the other, thirty would be more than anybody waits for."""
    room = HEAD_BYTES - len(start) - len(end)
    assert sniff(start + comment * (room // len(comment)) + end, "x.md") == mimetype


def test_a_comment_ends_where_it_ends() -> None:
    assert sniff(b"<!-- a --> b --><html>", "x.txt") == "text/plain"


@given(st.binary(max_size=300), st.text(max_size=20))
def test_anything_has_a_type(head: bytes, name: str) -> None:
    assert "/" in sniff(head, name)


@pytest.mark.parametrize(
    ("allowed", "mimetype", "name", "admitted"),
    [
        (None, "image/png", "x", True),
        ([], "image/png", "x", True),
        (["image/png"], "image/png", "x", True),
        (["image/*"], "image/png", "x", True),
        (["IMAGE/PNG "], "image/png", "x", True),
        (["*/*"], "image/png", "x", True),
        ([".png"], "image/png", "x", True),
        (["png", "pdf"], "application/pdf", "x", True),
        (["pdf"], "image/png", "x.pdf", False),
        (["pdf"], "text/plain", "x.pdf", True),
        (["pdf"], "text/html", "x.pdf", False),
        (["csv"], "text/csv", "x.csv", True),
        (["text/*"], "text/html", "x", True),
        (["application/pdf"], "image/png", "x", False),
        ([""], "image/png", "x", False),
    ],
)
def test_admission(allowed: list[str] | None, mimetype: str, name: str, admitted: bool) -> None:
    assert admits(allowed, mimetype, name) == admitted


@given(st.binary(min_size=200, max_size=3000))
def test_binary_is_no_text(data: bytes) -> None:
    """Whatever came out of a compressor, with the mark of a text before it or without."""
    packed = zlib.compress(data + b"x" * 50)[2:]
    some = packed * (600 // len(packed) + 1)
    if max(map(some.count, set(some))) < len(some) / 3:
        for head in (some[:500], b"\xff\xfe" + some[:500], b"\xfe\xff" + some[:500]):
            assert not sniff(head, "x.txt").startswith("text/")
