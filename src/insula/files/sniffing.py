"""What kind of file it is, told by its first bytes and not believed; and what a field admits."""

import codecs
import mimetypes
import re
import unicodedata
from collections.abc import Sequence

import filetype

HEAD_BYTES = 8192
"""How many bytes sniffing wants to see."""

UNKNOWN = "application/octet-stream"

# What may stand before the first tag is never given back: a head is a stranger's, and one full of
# comments could otherwise be divided among them in more ways than anybody can wait for.
_COMMENTS = rb"\s*+(?><!--.*?-->\s*+)*+"
_HTML = re.compile(_COMMENTS + rb"<(?:!doctype html|html|head|body)[\s>]", re.I | re.S)
_SVG = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>)?+" + _COMMENTS + rb"(?:<!doctype svg[^>]*+>\s*+)?+<svg[\s>]",
    re.I | re.S,
)
_NO_TEXT = ("Cc", "Cn", "Co", "Cs")
_ASCII_SHARE = 0.7
"""Of the bytes of a Western text in 8 bits, at least."""
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

# Kinds of text that no magic number tells apart: here the name decides, among these alone.
_TEXT_NAMES = {
    "csv": "text/csv",
    "eml": "message/rfc822",
    "json": "application/json",
    "md": "text/markdown",
    "markdown": "text/markdown",
    "tsv": "text/tab-separated-values",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}
# Office files are zip archives; old ones are compound documents. The name says which.
_OFFICE = "application/vnd.openxmlformats-officedocument"
_CONTAINER_NAMES = {
    ("application/zip", "docx"): f"{_OFFICE}.wordprocessingml.document",
    ("application/zip", "xlsx"): f"{_OFFICE}.spreadsheetml.sheet",
    ("application/zip", "pptx"): f"{_OFFICE}.presentationml.presentation",
}


def extension(filename: str) -> str:
    """Return what follows the last dot, in lower case."""
    return filename.rpartition(".")[2].lower() if "." in filename else ""


def sniff(head: bytes, filename: str) -> str:
    """Tell the media type from the first bytes; the name only chooses among kinds of text."""
    found = filetype.guess_mime(head)
    if found is not None:
        return _CONTAINER_NAMES.get((found, extension(filename)), str(found))
    text = _text(head)
    if _SVG.match(head) or _SVG.match(text or b""):
        return "image/svg+xml"
    if text is None:
        return UNKNOWN
    if _HTML.match(text):
        return "text/html"
    return _TEXT_NAMES.get(extension(filename), "text/plain")


def _text(head: bytes) -> bytes | None:
    """Return the beginning of a text in UTF-8; ``None`` if these bytes are none."""
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return _from_utf16(head)
    if _CONTROL.search(head):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return _from_8_bits(head)
    return head.removeprefix(codecs.BOM_UTF8)


def _from_utf16(head: bytes) -> bytes | None:
    whole = head if len(head) < HEAD_BYTES else head[:HEAD_BYTES]
    try:
        text = codecs.getincrementaldecoder("utf-16")().decode(whole, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return None
    if any(unicodedata.category(c) in _NO_TEXT and c not in "\t\n\v\f\r\x1b" for c in text):
        return None
    return text.encode()


def _from_8_bits(head: bytes) -> bytes | None:
    """Take it for Western text if it mostly is ASCII: what is compressed, or of numbers, is not."""
    ascii_bytes = sum(byte < 0x80 for byte in head)
    if ascii_bytes < _ASCII_SHARE * len(head):
        return None
    try:
        return head.decode("cp1252").encode()
    except UnicodeDecodeError:
        return None


def admits(allowed: Sequence[str] | None, mimetype: str, filename: str) -> bool:
    """Say whether a list of types (``image/*``, ``application/pdf``, ``.csv``, ``pdf``) admits it.

    An empty list or none admits everything. An extension asks for the sniffed type to be the one
    that goes with it, whatever the file is called.
    """
    if not allowed:
        return True
    return any(_admits(entry.strip().lower(), mimetype, filename) for entry in allowed)


def _admits(entry: str, mimetype: str, filename: str) -> bool:
    if entry in ("*", "*/*"):
        return True
    if entry.endswith("/*"):
        return mimetype.startswith(entry[:-1])
    if "/" in entry:
        return mimetype == entry
    wanted = entry.lstrip(".")
    expected = _TEXT_NAMES.get(wanted) or mimetypes.guess_type(f"x.{wanted}")[0]
    if expected == mimetype:
        return True
    # A type that cannot be sniffed further: then the name has to agree.
    return mimetype in (UNKNOWN, "text/plain") and extension(filename) == wanted
