"""One reading: what a reader sends is believed only so far."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest

from insula.adapters.extraction.extractor import ExtractionFailed, ExtractionLimits, Extractor
from insula.adapters.extraction.messages import BLOCK_BYTES, Block, PageImage, Piece
from insula.files import extractions
from insula.files.reading import Reading
from insula.files.store import FileStore, Wanted, store_file
from insula.files.wish import Wish


class Endless:
    """A reader that sends the same without an end."""

    def __init__(self, message: Any) -> None:
        self.limits = ExtractionLimits(seconds=1, memory=2**20, output=1024, pages=1)
        self.sent = 0
        self._message = message

    @asynccontextmanager
    async def read(self, *_: Any) -> AsyncIterator[AsyncGenerator[Any, None]]:
        yield self._messages()

    async def _messages(self) -> AsyncGenerator[Any, None]:
        while True:
            self.sent += 1
            yield self._message


@pytest.mark.parametrize(
    ("message", "most", "words"),
    [
        ([Block(1, "TEXT", "", 1)], (2 * 1024 + 2**20) // BLOCK_BYTES, "INSULA_EXTRACT_OUTPUT"),
        (PageImage(1, 9, 9, "image/png", b"x" * 300_000), 4, "images come to more"),
        (Piece(b""), 2, "misbehave"),
    ],
    ids=["blocks", "images", "pieces"],
)
async def test_what_a_reader_sends_ends(
    store: FileStore, message: Any, most: int, words: str
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    row = await store_file(store, Wanted("app_1", "a.txt"), chunks())
    begin = partial(extractions.begin, file_id=row.id, app_id="app_1", mimetype="text/plain")
    await store.database.write(partial(begin, wish=Wish(contents=True)))
    claim = partial(extractions.claim, token="t", working=[], after="")
    assert await store.database.write(claim) is not None
    endless = Endless(message)
    reading = Reading(store, cast("Extractor", endless), row, Wish(contents=True), "t")
    with pytest.raises(ExtractionFailed, match=words):
        await reading.run()
    assert endless.sent == most + 1
