"""Has documents read by real processes, and finds these, for tests."""

import io
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from tests.acceptance.processes import alive

from insula.adapters.extraction.collector import Collector
from insula.adapters.extraction.extractor import ExtractionLimits, Extractor
from insula.adapters.extraction.messages import Block, Message, Order, PageImage
from insula.adapters.extraction.worker import Read

MIB = 2**20
LIMITS = ExtractionLimits(seconds=30, memory=256 * MIB, output=MIB, pages=100)


def order(kind: Any, size: int, limits: ExtractionLimits = LIMITS, **changes: Any) -> Order:
    """Make an order: the contents of all pages, unless asked otherwise."""
    asked: dict[str, Any] = {
        "contents": True,
        "images": False,
        "extract_pages": False,
        "pages": None,
        "max_pages": None,
        **changes,
    }
    return Order(
        kind=kind,
        filename="f",
        mimetype="m",
        size=size,
        pages_limit=limits.pages,
        output=limits.output,
        memory=limits.memory,
        cpu=int(limits.seconds),
        **asked,
    )


@asynccontextmanager
async def given(data: bytes) -> AsyncIterator[BinaryIO]:
    """Give a document to a reader."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


async def read_by(extractor: Extractor, kind: str, data: bytes, **asked: Any) -> list[Message]:
    """Have a document read; return all that is told of it."""
    wanted = order(kind, len(data), extractor.limits, **asked)
    async with extractor.read(wanted, given(data)) as messages:
        return [message async for message in messages]


async def read(
    kind: str, data: bytes, limits: ExtractionLimits = LIMITS, **asked: Any
) -> list[Message]:
    """Have a document read by an extractor of its own."""
    async with Extractor(limits) as extractor:
        return await read_by(extractor, kind, data, **asked)


async def blocks(kind: str, data: bytes, **asked: Any) -> list[Block]:
    """Have a document read; return its blocks."""
    messages = await read(kind, data, **asked)
    return [block for message in messages if isinstance(message, list) for block in message]


async def told(kind: str, data: bytes, **asked: Any) -> list[tuple[str, str]]:
    """Have a document read; return types and texts of its blocks."""
    return [(block.type, block.content) for block in await blocks(kind, data, **asked)]


class Kept(Collector):
    """Keeps what is found instead of sending it."""

    images: list[PageImage]
    pieces: list[bytes]

    def flush(self) -> None:
        """Send nothing."""

    def progress(self, done: int, of: int) -> None:
        """Tell nobody."""

    def image(self, image: PageImage) -> None:
        """Keep an image."""
        self.images.append(image)

    def piece(self, data: bytes) -> None:
        """Keep a piece of a PDF."""
        self.pieces.append(data)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Types and texts of the blocks."""
        return [(block.type, block.content) for block in self._waiting]


def read_here(read: Read, data: bytes, output: int = MIB, **asked: Any) -> Kept:
    """Have a document read in this process."""
    found = Kept(order("text", len(data), replace(LIMITS, output=output), **asked), -1)
    found.images, found.pieces = [], []
    read(io.BytesIO(data), found)
    return found


def children(pid: int) -> list[int]:
    """The processes under a process that run; dead ones wait a moment for whoever reaps them."""
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in told if alive(int(child))]


def zygotes() -> list[int]:
    """The zygotes of readers under this process."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(os.getpid())}
    return [pid for pid, line in lines.items() if b"extraction.zygote" in line]


def readers() -> list[int]:
    """The processes that read documents."""
    return [reader for zygote in zygotes() for reader in children(zygote)]
