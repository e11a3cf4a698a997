"""What the server and the process that reads a document say to each other, as bounded frames.

A frame is a length (4 bytes, little-endian), a kind (1 byte) and a MessagePack body. The server
believes nothing that arrives: types and sizes are checked.
"""

import os
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Literal

import msgspec

HEADER = struct.Struct("<IB")
FRAME_MAX = 48 * 1024 * 1024
"""Bytes of one frame; a page's image is the largest thing in one."""
BATCH_BYTES = 256 * 1024
"""Text that a reader gathers before it sends blocks; pieces of a file are as large."""
BLOCK_BYTES = 300
"""What a block counts for besides its text: about what it takes in memory, here and there."""
_BLOCKS_MAX = BATCH_BYTES // BLOCK_BYTES + 1
"""Blocks of one frame, by that."""

BlockType = Literal[
    "TITLE",
    "TEXT",
    "NARRATIVETEXT",
    "LISTITEM",
    "TABLE",
    "IMAGE",
    "PAGEBREAK",
    "HEADER",
    "FOOTER",
    "FIELD-NAME",
    "LINK",
]
DocumentKind = Literal[
    "pdf", "word", "sheet", "slides", "html", "markdown", "table", "text", "mail", "picture"
]


class Kind(IntEnum):
    """What a frame is."""

    ORDER = 1
    PROGRESS = 2
    BLOCKS = 3
    IMAGE = 4
    PIECE = 5
    DONE = 6
    FAILED = 7


class Order(msgspec.Struct, array_like=True):
    """What to make of the document on descriptor 3; sizes in bytes, ``cpu`` in seconds.

    ``pages`` are counted from 1; without them all are meant, or the first ``max_pages``.
    """

    kind: DocumentKind
    filename: str
    mimetype: str
    size: int
    contents: bool
    images: bool
    extract_pages: bool
    pages: list[int] | None
    max_pages: int | None
    pages_limit: int
    output: int
    memory: int
    cpu: int
    whole: bool = False
    """Contents and images are of all pages, and only the PDF of those that are chosen."""


class Block(msgspec.Struct, array_like=True):
    """A piece of a document; ``parent`` is the id of the title it stands under."""

    id: int
    type: BlockType
    content: str
    page: int
    html: str | None = None
    parent: int | None = None


class Progress(msgspec.Struct, array_like=True):
    """So much of it is done, from 0 to 1."""

    done: Annotated[float, msgspec.Meta(ge=0, le=1)]


class PageImage(msgspec.Struct, array_like=True):
    """A page as an image, or a picture that stands in the document."""

    page: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    width: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    height: Annotated[int, msgspec.Meta(ge=1, le=100_000)]
    type: Literal["image/jpeg", "image/png"]
    data: bytes


class Piece(msgspec.Struct, array_like=True):
    """A piece of the PDF with the chosen pages; an empty one is its end."""

    data: bytes


class Done(msgspec.Struct, array_like=True):
    """The end. ``note`` is for people, about a document that was read but gave little; ``missing``
    names the walls that could not be raised."""

    note: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    missing: Annotated[list[str], msgspec.Meta(max_length=100)] = []


class Failed(msgspec.Struct, array_like=True):
    """The document cannot be read; why, in words."""

    message: Annotated[str, msgspec.Meta(max_length=2_000)]


_Blocks = Annotated[list[Block], msgspec.Meta(max_length=_BLOCKS_MAX)]

_encoder = msgspec.msgpack.Encoder()
_DECODERS: dict[Kind, Callable[[bytes], "Message"]] = {
    Kind.PROGRESS: msgspec.msgpack.Decoder(Progress).decode,
    Kind.BLOCKS: msgspec.msgpack.Decoder(_Blocks).decode,
    Kind.IMAGE: msgspec.msgpack.Decoder(PageImage).decode,
    Kind.PIECE: msgspec.msgpack.Decoder(Piece).decode,
    Kind.DONE: msgspec.msgpack.Decoder(Done).decode,
    Kind.FAILED: msgspec.msgpack.Decoder(Failed).decode,
}
decode_order = msgspec.msgpack.Decoder(Order).decode

Message = Progress | list[Block] | PageImage | Piece | Done | Failed


def frame(kind: Kind, body: object) -> bytes:
    """Make a frame."""
    data = _encoder.encode(body)
    return HEADER.pack(len(data), kind) + data


def decode(kind: int, data: bytes) -> Message:
    """Read what a reader sent.

    Raises:
        ValueError: it is nothing that a reader says.
    """
    decoder = _DECODERS.get(Kind(kind))
    if decoder is None:
        raise ValueError(f"a frame of kind {kind}")
    return decoder(data)


def send(descriptor: int, kind: Kind, body: object) -> None:
    """Write a frame to a descriptor, all of it."""
    view = memoryview(frame(kind, body))
    while view:
        view = view[os.write(descriptor, view) :]
