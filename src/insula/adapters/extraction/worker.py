"""The process that reads one document, behind walls: it can open no file, reach nobody, and start
nothing; memory and time are limited. The server stands on descriptors 0 and 1; its process id and
the descriptor of the document are the arguments.
"""

import encodings.aliases
import importlib
import io
import os
import resource
import sys
from collections.abc import Callable
from typing import BinaryIO

from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.messages import (
    HEADER,
    Done,
    Failed,
    Kind,
    Order,
    decode_order,
    send,
)
from insula.adapters.sandbox.confinement import Walls, die_with, leave_network

_NICE = 10
_MODULES = {
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
_CODECS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp437", "cp1252", "ascii")
_REHEARSED = {
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
"""Read once before the walls are raised: libraries load some of their parts at first use."""


def main() -> None:
    """Read the order, raise the walls, read the document, answer, end."""
    die_with(int(sys.argv[1]))
    os.nice(_NICE)
    os.chdir("/")
    order = _read_order()
    read = _reader(order)
    missing = _raise_walls(order)
    found = Collector(order, 1)
    try:
        with os.fdopen(int(sys.argv[2]), "rb", closefd=False) as file:
            note = read(file, found)
        found.flush()
        if order.contents and not found.blocks:
            note = note or "Nothing was found in the document"
        send(1, Kind.DONE, Done(note or "", missing))
    except Refused as refused:
        send(1, Kind.FAILED, Failed(str(refused)[:2000]))
    except (MemoryError, OverflowError):
        mebibytes = order.memory // 2**20
        words = f"The document needs more than {mebibytes} MiB (INSULA_EXTRACT_MEMORY)"
        send(1, Kind.FAILED, Failed(words))
    except RecursionError:
        send(1, Kind.FAILED, Failed("The document nests too deeply"))
    except SyntaxError:
        words = "The document is damaged: a part of it is no well-formed XML, or grows without end"
        send(1, Kind.FAILED, Failed(words))
    except Exception as error:  # whatever a library makes of a hostile document ends here
        send(1, Kind.FAILED, Failed(f"The document cannot be read ({type(error).__name__})"))
    os._exit(0)


def _read_order() -> Order:
    data = b""
    while len(data) < HEADER.size or len(data) < HEADER.size + HEADER.unpack_from(data)[0]:
        piece = os.read(0, 65536)
        if not piece:
            os._exit(2)
        data += piece
    return decode_order(data[HEADER.size :])


def _reader(order: Order) -> Callable[[BinaryIO, Collector], str | None]:
    """Load what reading this kind takes: behind the walls nothing can be loaded."""
    name = _MODULES[order.kind]
    module = importlib.import_module(f"insula.adapters.extraction.{name}")
    pictures = importlib.import_module("insula.adapters.extraction.pictures")
    pictures.prepare()
    if order.kind == "pdf":
        module.prepare()
    for codec in {*_CODECS, *_mail_codecs(order)}:
        "".encode(codec)
    read: Callable[[BinaryIO, Collector], str | None] = getattr(module, f"read_{order.kind}")
    if order.kind in _REHEARSED:
        nobody = os.open(os.devnull, os.O_WRONLY)
        rehearsal = Collector(order, nobody)
        read(io.BytesIO(_REHEARSED[order.kind]), rehearsal)
        rehearsal.flush()
        os.close(nobody)
    return read


def _mail_codecs(order: Order) -> set[str]:
    """Any charset may stand in a message."""
    if order.kind != "mail":
        return set()
    names = {name for name in encodings.aliases.aliases.values() if not name.endswith("_codec")}
    known = set()
    for name in names:
        try:
            "".encode(name)
        except (LookupError, ValueError):
            continue
        known.add(name)
    return known


def _raise_walls(order: Order) -> list[str]:
    missing = []
    try:
        leave_network()
    except OSError as error:
        missing.append(("network", str(error)))
    walls = Walls("documents", os.getppid())
    walls.raise_all()
    walls.hold_memory(order.memory, order.size)
    resource.setrlimit(resource.RLIMIT_CPU, (order.cpu, order.cpu))
    return [f"{name}: {why}"[:200] for name, why in (*missing, *walls.missing)]


if __name__ == "__main__":
    main()
