"""E-mail: who wrote to whom, about what; its text; the names of what is attached.

What a header says is a stranger's, and the library breaks over many that are not well-formed, or
takes a time that grows with the square of their length: then they are shown as they stand.
"""

import email
from collections.abc import Iterator
from contextlib import suppress
from email import policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import EmailMessage, MIMEPart
from itertools import islice
from typing import BinaryIO

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.markup import add_html
from insula.adapters.extraction.text import add_paragraphs, decoded

_SHOWN = ("From", "To", "Cc", "Date")
_PARTS = 1_000
_HEADER = 20_000
"""Characters of a header that is taken apart."""
_TEXTS = ("text/plain", "text/html")
_ODD = (
    *(ValueError, LookupError, AttributeError, TypeError, AssertionError, RecursionError),
    MessageError,
)
"""What the library raises for headers that are not well-formed."""


def read_mail(file: BinaryIO, found: Collector) -> None:
    """Read a message."""
    message = email.message_from_binary_file(file, policy=policy.default)
    if not message.keys():
        raise Refused("The file is no e-mail message: it has no headers")
    _add_headers(message, found)
    parts = _leaves(message)
    for part in islice(parts, _PARTS):
        if _is_text(part) or (part is message and _type(part).startswith(("text/", "multipart/"))):
            _add_text(part, found)
        else:
            found.add("TEXT", f"Attachment: {_filename(part) or _type(part)}")
    if next(parts, None) is not None:
        found.leave_out(f"what follows the first {_PARTS:,} parts")


def _add_headers(message: EmailMessage, found: Collector) -> None:
    found.title("\n".join(_values(message, "Subject")[:1]))
    for name in _SHOWN:
        for value in _values(message, name):
            found.add("HEADER", f"{name}: {value}")


def _values(message: EmailMessage, name: str) -> list[str]:
    raw = [value for key, value in message.raw_items() if key.lower() == name.lower()]
    return [_value(name, str(value)) for value in raw]


def _value(name: str, raw: str) -> str:
    with suppress(UnicodeEncodeError):
        raw = decoded(raw.encode("ascii", "surrogateescape"))  # 8 bits, which none should have
    if len(raw) <= _HEADER:
        with suppress(*_ODD):
            return str(policy.default.header_fetch_parse(name, raw))
    raw = " ".join(raw.split())
    with suppress(*_ODD):
        return str(make_header(decode_header(raw)))
    return raw


def _leaves(part: MIMEPart) -> Iterator[MIMEPart]:
    """Give the parts of a message in their order; of several forms of the same the plainest."""
    kind = _type(part)
    inner = part.get_payload() if kind.startswith("multipart/") else None
    parts = (
        [each for each in inner if isinstance(each, MIMEPart)] if isinstance(inner, list) else []
    )
    if not parts:
        yield part
    elif kind == "multipart/alternative":
        yield from _leaves(_plainest(parts))
    else:
        for each in parts:
            yield from _leaves(each)


def _plainest(parts: list[MIMEPart]) -> MIMEPart:
    for kind in _TEXTS:
        for part in parts:
            if _type(part) == kind and _content(part).strip():
                return part
    return parts[-1]


def _is_text(part: MIMEPart) -> bool:
    with suppress(*_ODD):
        return _type(part) in _TEXTS and not part.is_attachment() and not _filename(part)
    return False


def _type(part: MIMEPart) -> str:
    with suppress(*_ODD):
        return part.get_content_type()
    return "text/plain"


def _filename(part: MIMEPart) -> str:
    with suppress(*_ODD):
        return part.get_filename() or ""
    return ""


def _add_text(part: MIMEPart, found: Collector) -> None:
    text = _content(part)
    if _type(part) == "text/html":
        add_html(text, found)
    else:
        add_paragraphs(text, found)


def _content(part: MIMEPart) -> str:
    data = None
    with suppress(*_ODD):
        data = part.get_payload(decode=True)
        if part.get_content_charset("us-ascii") == "us-ascii" and isinstance(data, bytes):
            return decoded(data)  # 8 bits, of which nobody said what they are
        return str(part.get_content())
    # A charset or a type that nobody knows.
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else ""
