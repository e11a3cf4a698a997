"""What a reader does: it reads one document, behind walls, and ends. It can open no file, reach
nobody, and start nothing; memory and time are limited.

The zygote has loaded what that takes (``prepare``) and has forked the reader for this document
alone (``serve``). The server stands on descriptors 0 and 1, the document on 3.
"""

import encodings.aliases
import importlib
import io
import os
import resource
from collections.abc import Callable, Sequence
from typing import BinaryIO, NoReturn

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.messages import (
    HEADER,
    DocumentKind,
    Done,
    Failed,
    Kind,
    Order,
    decode_order,
    send,
)
from insula.adapters.sandbox.confinement import Walls

Read = Callable[[BinaryIO, Collector], str | None]
"""Reads a document of one kind; returns what is to be said about it."""

SERVER, DOCUMENT = 0, 3
"""Descriptors; answers go to 1, which is the server, too."""

MODULES: dict[DocumentKind, str] = {
    "pdf": "pdf",
    "word": "word",
    "sheet": "sheet",
    "slides": "slides",
    "html": "markup",
    "markdown": "markup",
    "table": "text",
    "text": "text",
    "mail": "mail",
    "picture": "pictures",
}
"""Which file reads each kind."""
_CODECS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp437", "cp1252", "ascii")
_CHARSETS: tuple[DocumentKind, ...] = ("html", "mail")
"""Kinds in which any charset may be declared."""
_REHEARSED: dict[DocumentKind, bytes] = {
    "html": b"<p>a</p>",
    "markdown": b"a",
    "table": b"a,b\n",
    "text": b"a",
    "mail": b"Subject: =?utf-8?q?a?=\nFrom: a <a@b.c>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
    b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
    b"--x\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
    b"a=20b\n--x\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\nYQ==\n"
    b"--x\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n"
    b"\n\n--x--\n",
}
"""Read once before any document is: libraries load some of their parts at first use."""


def prepare(kind: DocumentKind) -> Read:
    """Load what reading this kind takes: behind the walls nothing can be loaded."""
    module = importlib.import_module(f"insula.adapters.extraction.{MODULES[kind]}")
    importlib.import_module("insula.adapters.extraction.pictures").prepare()
    if kind == "pdf":
        module.prepare()
    for codec in {*_CODECS, *(_all_codecs() if kind in _CHARSETS else ())}:
        "".encode(codec)
    read: Read = getattr(module, f"read_{kind}")
    if kind in _REHEARSED:
        _rehearse(kind, read)
    return read


def _rehearse(kind: DocumentKind, read: Read) -> None:
    order = Order(
        kind=kind,
        filename="",
        mimetype="",
        size=0,
        contents=True,
        images=False,
        extract_pages=False,
        pages=None,
        max_pages=None,
        pages_limit=1,
        output=1 << 20,
        memory=1 << 30,
        cpu=1,
    )
    nobody = os.open(os.devnull, os.O_WRONLY)
    rehearsal = Collector(order, nobody)
    read(io.BytesIO(_REHEARSED[kind]), rehearsal)
    rehearsal.flush()
    os.close(nobody)


def _all_codecs() -> set[str]:
    """Return the names of all character sets."""
    names = {name for name in encodings.aliases.aliases.values() if not name.endswith("_codec")}
    known = set()
    for name in names:
        try:
            "".encode(name)
        except (LookupError, ValueError):
            continue
        known.add(name)
    return known


def serve(
    kind: DocumentKind, read: Read, parent: int, missing: Sequence[tuple[str, str]]
) -> NoReturn:
    """Take the order, raise the walls, read the document, answer, end.

    ``missing`` names the walls that ``parent`` could not raise around itself.
    """
    order = _read_order()
    if order.kind != kind:
        os._exit(2)
    walls = _raise_walls(order, parent, missing)
    found = Collector(order, 1)
    try:
        with os.fdopen(DOCUMENT, "rb", closefd=False) as file:
            note = read(file, found)
        found.flush()
        if order.contents and not found.blocks:
            note = note or "Nothing was found in the document"
        send(1, Kind.DONE, Done(_note(note, found), walls))
    except Exception as error:  # whatever a library makes of a hostile document ends here
        send(1, Kind.FAILED, Failed(_words(error, order)[:2000]))
    os._exit(0)


def _note(note: str | None, found: Collector) -> str:
    """Say what there is to be said of a document that was read."""
    left_out = f"Left out: {'; '.join(found.left_out)}" if found.left_out else ""
    return ". ".join(filter(None, (note, left_out)))[:1000]


def _words(error: Exception, order: Order) -> str:
    """Say to people why a document could not be read."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, MemoryError | OverflowError):
        mebibytes = order.memory // 2**20
        return f"The document needs more than {mebibytes} MiB (INSULA_EXTRACT_MEMORY)"
    if isinstance(error, RecursionError):
        return "The document nests too deeply"
    if isinstance(error, SyntaxError):
        return "The document is damaged: a part of it is no well-formed XML, or grows without end"
    return f"The document cannot be read ({type(error).__name__})"


def _read_order() -> Order:
    data = b""
    while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[0]:
        piece = os.read(SERVER, 65536)
        if not piece:
            os._exit(2)
        data += piece
    return decode_order(data[HEADER.size :])


def _raise_walls(order: Order, parent: int, missing: Sequence[tuple[str, str]]) -> list[str]:
    walls = Walls("documents", parent)
    walls.raise_all()
    walls.hold_memory(order.memory, order.size)
    resource.setrlimit(resource.RLIMIT_CPU, (order.cpu, order.cpu))
    return [f"{name}: {why}"[:200] for name, why in (*missing, *walls.missing)]
