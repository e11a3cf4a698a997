"""E-mail: who wrote to whom, about what; its text; the names of what is attached."""

import email
from email import policy
from email.message import EmailMessage, MIMEPart
from typing import BinaryIO

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.markup import add_html
from insula.adapters.extraction.text import add_paragraphs, decoded

_SHOWN = ("From", "To", "Cc", "Date")
_ATTACHMENTS = 1_000


def read_mail(file: BinaryIO, found: Collector) -> None:
    """Read a message."""
    message = email.message_from_binary_file(file, policy=policy.default)
    if not message.keys():
        raise Refused("The file is no e-mail message: it has no headers")
    _add_headers(message, found)
    body = message.get_body(("plain", "html"))
    if body is not None:
        text = _content(body)
        if body.get_content_type() == "text/html":
            add_html(text, found)
        else:
            add_paragraphs(text, found)
    for number, part in enumerate(message.iter_attachments()):
        if number >= _ATTACHMENTS:
            break
        name = part.get_filename() or part.get_content_type()
        found.add("TEXT", f"Attachment: {name}")


def _add_headers(message: EmailMessage, found: Collector) -> None:
    found.title(str(message.get("Subject", "")))
    for name in _SHOWN:
        for value in message.get_all(name, []):
            found.add("HEADER", f"{name}: {value}")


def _content(part: MIMEPart) -> str:
    data = part.get_payload(decode=True)
    if part.get_content_charset("us-ascii") == "us-ascii" and isinstance(data, bytes):
        return decoded(data)  # 8 bits, of which nobody said what they are
    try:
        return str(part.get_content())
    except (LookupError, KeyError, ValueError):  # a charset or a type that nobody knows
        return data.decode("utf-8", "replace") if isinstance(data, bytes) else ""
