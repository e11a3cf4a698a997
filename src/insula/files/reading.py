"""One reading of one document: its bytes to the reader, what comes back to blocks and files."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

from sqlalchemy import Connection

from insula.adapters.extraction.extractor import ExtractionFailed, Extractor
from insula.adapters.extraction.kinds import kind_of, refusal
from insula.adapters.extraction.messages import (
    BLOCK_BYTES,
    Block,
    Done,
    Message,
    Order,
    PageImage,
    Piece,
    Progress,
)
from insula.files import extractions
from insula.files.repository import FileRow
from insula.files.store import FileStore, Wanted, store_file
from insula.files.wish import Wish

_ENDINGS = {"image/jpeg": "jpg", "image/png": "png"}
_IMAGE_BYTES = 2**20
"""What images take at most for each page that may be read, besides what any file may take."""


class Gone(Exception):
    """The document is no longer this process's to read: cancelled, deleted, or another's."""


class Reading:
    """Reads one document; what it finds is in its attributes when it has run."""

    def __init__(
        self, store: FileStore, extractor: Extractor, file: FileRow, wish: Wish, token: str
    ) -> None:
        self.file = file
        self.token = token
        self.progress = 0.0
        self.note = ""
        self._store = store
        self._extractor = extractor
        self._wish = wish
        self._contents: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._pages: str | None = None
        self._room = 2 * extractor.limits.output + 2**20
        self._image_room = store.limit + extractor.limits.pages * _IMAGE_BYTES

    def document(self, seconds: float) -> dict[str, Any]:
        """Return what was found, as it is stored."""
        return {
            "contents": self._contents,
            "images": self._images,
            "pages": self._pages,
            "time": seconds,
        }

    async def run(self) -> None:
        """Read it.

        Raises:
            ExtractionFailed: it cannot be read; the message is for people.
            MissingBlob: its bytes are gone.
            Gone: somebody ended it meanwhile.
        """
        asked = order_for(self.file, self._wish, self._extractor)
        async with self._extractor.read(asked, copied(self._store, self.file)) as messages:
            async for message in messages:
                await self._take(message, messages)

    async def _take(self, message: Message, messages: AsyncGenerator[Message, None]) -> None:
        if isinstance(message, list):
            for block in message:
                self._add(block)
        elif isinstance(message, Progress):
            self.progress = message.done
        elif isinstance(message, PageImage):
            await self._add_image(message)
        elif isinstance(message, Piece):
            if self._pages is not None:
                raise ExtractionFailed("The document made its reader misbehave; it was ended")
            name = f"{self.file.filename.rpartition('.')[0] or self.file.filename} (pages).pdf"
            row = await self._store_child(name, pieces(message, messages))
            self._pages = row.id
        elif isinstance(message, Done):
            self.note = message.note

    def _add(self, block: Block) -> None:
        self._charge(len(block.content) + len(block.html or ""))
        found: dict[str, Any] = {
            "id": block.id,
            "type": block.type,
            "content": block.content,
            "page": block.page,
        }
        if block.html is not None:
            found["content_as_html"] = block.html
        if block.parent is not None:
            found["parent"] = block.parent
        self._contents.append(found)

    def _charge(self, size: int) -> None:
        self._room -= size + BLOCK_BYTES
        if self._room < 0:
            raise ExtractionFailed("The document's contents are over INSULA_EXTRACT_OUTPUT")

    async def _add_image(self, image: PageImage) -> None:
        self._charge(0)
        self._image_room -= len(image.data)
        if self._image_room < 0:
            raise ExtractionFailed(
                "The document's images come to more than INSULA_FILE_MAX and 1 MiB for each page "
                "of INSULA_EXTRACT_PAGES; choose some of its pages with document_pages"
            )
        number = len(self._images) + 1
        name = f"{self.file.filename} ({number}).{_ENDINGS[image.type]}"
        row = await self._store_child(name, _once(image.data))
        self._images.append(
            {
                "file_id": row.id,
                "type": image.type,
                "page": image.page,
                "width": image.width,
                "height": image.height,
            }
        )

    async def _store_child(self, name: str, chunks: AsyncIterator[bytes]) -> FileRow:
        """Store what came of the document: it lives as long as that, and is seen by the same."""

        def still_ours(connection: Connection, _: FileRow) -> None:
            if not extractions.is_mine(connection, self.file.id, self.token):
                raise Gone

        parent = self.file
        wanted = Wanted(
            app_id=parent.app_id,
            filename=name,
            storage=parent.storage,
            visibility=parent.visibility,
            run_id=parent.run_id,
            parent_id=parent.id,
        )
        return await store_file(self._store, wanted, chunks, still_ours)


def order_for(file: FileRow, wish: Wish, extractor: Extractor) -> Order:
    """Make the order for a document.

    Raises:
        ExtractionFailed: nothing can be extracted from its type.
    """
    kind = kind_of(file.mimetype)
    if kind is None:
        raise ExtractionFailed(refusal(file.mimetype))
    limits = extractor.limits
    piece = wish.extract_pages and kind == "pdf"
    all_of_it = wish.whole and not piece
    return Order(
        kind=kind,
        filename=file.filename,
        mimetype=file.mimetype,
        size=file.size,
        contents=wish.contents,
        images=wish.images,
        extract_pages=piece,
        pages=None if all_of_it or wish.pages is None else list(wish.pages),
        max_pages=None if all_of_it else wish.max_pages,
        pages_limit=limits.pages,
        output=limits.output,
        memory=limits.memory,
        cpu=int(limits.seconds) + 1,
        whole=wish.whole,
    )


@asynccontextmanager
async def copied(store: FileStore, file: FileRow) -> AsyncIterator[BinaryIO]:
    """Copy a file's bytes to where a reader can seek in them, for as long as the block runs."""
    with tempfile.TemporaryFile() as copy:
        async for chunk in store.blobs.open_stream(file.id):
            await asyncio.to_thread(copy.write, chunk)
        await asyncio.to_thread(copy.seek, 0)
        yield copy


async def pieces(
    first: Piece, messages: AsyncGenerator[Message, None]
) -> AsyncGenerator[bytes, None]:
    """Give a file that comes in pieces, up to the empty one that ends it."""
    if first.data:
        yield first.data
    async for message in messages:
        if not isinstance(message, Piece) or not message.data:
            return
        yield message.data


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data
