"""Files that steps read, on a real database and a real disk: how many, and how much of them."""

from collections import Counter
from typing import Any

import httpx
import pytest

from insula.engine.failures import NoRoom, StepFailure
from insula.engine.ports import Activity, Aspect
from insula.files.reader import FileReader
from insula.files.repository import FileRow
from insula.files.resolve import FileInputs
from insula.files.wish import Wish
from insula.kit import json
from insula.kit.json import Raw

TEXTS = {"a": "some words", "b": "other words", "c": "more"}


class Counting(FileReader):
    """Counts what is read of documents, and of bytes."""

    def __init__(self, files: FileInputs) -> None:
        super().__init__(files.store, files.documents)
        self.read_of: Counter[str] = Counter()

    async def document(self, row: FileRow, wish: Wish) -> dict[str, Any]:
        self.read_of[row.filename] += 1
        words = TEXTS[row.filename]
        return {"contents": [{"content": words}], "images": []}


@pytest.fixture
def reader(files: FileInputs) -> Counting:
    return Counting(files)


@pytest.fixture
async def ids(client: httpx.AsyncClient) -> list[str]:
    """Files with the names and words of ``TEXTS``."""
    made = []
    for name, words in TEXTS.items():
        answer = await client.post("/apps/c/files", files={"file": (name, words.encode())})
        made.append(answer.json()["id"])
    return made


async def read(reader: FileReader, aspect: Aspect, file: Any, room: int) -> Any:
    return await reader.read("app_1", aspect, file, room, Activity("x", 0))


async def test_a_file_that_is_there_several_times_is_read_once(reader, ids) -> None:
    a, b, _ = ids
    found = await read(reader, "text", [a, {"id": a}, [b, [a]]], 3 * 10 + 11)
    assert found == ["some words", "some words", ["other words", ["some words"]]]
    assert reader.read_of == {"a": 1, "b": 1}


async def test_it_counts_each_time(reader, ids) -> None:
    with pytest.raises(NoRoom):
        await read(reader, "text", [ids[0]] * 1_000, 999 * 10)
    assert reader.read_of == {"a": 1}
    assert len(await read(reader, "text", [ids[0]] * 1_000, 1_000 * 10)) == 1_000


async def test_nothing_is_read_after_there_is_no_room(reader, ids) -> None:
    with pytest.raises(NoRoom):
        await read(reader, "text", ids, 20)
    assert reader.read_of == {"a": 1, "b": 1}


async def test_blocks_are_held_as_text_and_count_so(reader, ids) -> None:
    blocks = json.encode([{"content": "some words"}])
    found = await read(reader, "contents", ids[:1] * 2, 2 * len(blocks))
    assert found == [Raw(blocks), Raw(blocks)]
    with pytest.raises(NoRoom):
        await read(reader, "contents", ids[:1] * 2, 2 * len(blocks) - 1)


async def test_bytes_without_room_are_not_read(reader, ids, monkeypatch) -> None:
    whole = await read(reader, "file", ids[0], 1_000)
    assert await read(reader, "file", ids[0], len(whole)) == whole
    asked: list[str] = []

    async def bytes_of(key: str) -> bytes:
        asked.append(key)
        return b"some words"

    monkeypatch.setattr(reader._store.blobs, "read", bytes_of)
    with pytest.raises(NoRoom):
        await read(reader, "file", ids[0], len(whole) - 1)
    assert not asked
    with pytest.raises(NoRoom):
        await read(reader, "file", ids[:2], len(whole) + 1)
    assert asked == ids[:1]


@pytest.mark.parametrize("nested", [False, True])
async def test_too_many_files_are_not_read(reader, ids, nested: bool) -> None:
    many = [[ids[0]] * 501, [ids[0]] * 500] if nested else [ids[0]] * 1_001
    with pytest.raises(StepFailure, match="More than 1,000 files"):
        await read(reader, "text", many, 2**20)
    assert not reader.read_of
