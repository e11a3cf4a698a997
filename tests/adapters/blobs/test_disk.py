"""Files on disk: whole or not there, bounded, and swept when nobody refers to them."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from insula.adapters.blobs import disk
from insula.adapters.blobs.disk import DiskBlobs
from insula.adapters.blobs.port import Blobs, MissingBlob
from insula.errors import TooLarge, Unavailable

KEY = "file_2222222222222222222abC"


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path / "files")


async def test_what_is_written_is_read(blobs: Blobs) -> None:
    big = bytes(range(256)) * 8000
    assert await blobs.write(KEY, _chunks(b"ab", b"", big), 1 << 30) == len(big) + 2
    whole = b"ab" + big
    assert await blobs.read(KEY) == whole
    assert b"".join([piece async for piece in blobs.open_stream(KEY)]) == whole
    part = b"".join([piece async for piece in blobs.open_stream(KEY, 5, 600_000)])
    assert part == whole[5:600_000]


async def test_an_empty_file(blobs: Blobs) -> None:
    assert await blobs.write(KEY, _chunks(), 10) == 0
    assert await blobs.read(KEY) == b""


async def test_it_is_synced_before_it_is_visible(blobs, monkeypatch, tmp_path) -> None:
    seen: list[tuple[str, bool]] = []
    place = tmp_path / "files" / "bc" / KEY
    sync = os.fsync

    def watched(descriptor: int) -> None:
        seen.append((os.readlink(f"/proc/self/fd/{descriptor}"), place.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    await blobs.write(KEY, _chunks(b"x"), 10)
    assert seen[0][0].startswith(str(tmp_path / "files" / "incoming" / KEY))
    assert seen[0][1] is False
    assert seen[-1] == (str(place.parent), True)


async def test_the_limit_is_kept_while_streaming(blobs, tmp_path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="INSULA_FILE_MAX"):
        await blobs.write(KEY, endless(), 10_000)
    assert taken == 11
    assert _files(tmp_path) == []
    assert await blobs.write(KEY, _chunks(b"x" * 10_000), 10_000) == 10_000


async def test_a_stream_that_breaks_leaves_nothing(blobs, tmp_path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await blobs.write(KEY, broken(), 1 << 30)
    assert _files(tmp_path) == []


async def test_a_cancel_leaves_nothing(blobs, tmp_path) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.write(KEY, stuck(), 1 << 30))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _files(tmp_path) == []


async def test_a_full_disk_is_told(blobs, monkeypatch, tmp_path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "_append", full)
    with pytest.raises(Unavailable, match="full") as caught:
        await blobs.write(KEY, _chunks(b"x"), 10)
    assert caught.value.retry_after
    assert _files(tmp_path) == []


async def test_delete(blobs: Blobs) -> None:
    await blobs.write(KEY, _chunks(b"x"), 10)
    await blobs.delete(KEY)
    await blobs.delete(KEY)
    with pytest.raises(MissingBlob):
        await blobs.read(KEY)
    with pytest.raises(MissingBlob):
        await anext(blobs.open_stream(KEY))


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", "a.b", "x" * 101, "a\n"])
async def test_keys_are_no_paths(blobs: Blobs, key: str) -> None:
    with pytest.raises(MissingBlob):
        await blobs.read(key)
    with pytest.raises(MissingBlob):
        await blobs.write(key, _chunks(), 1)


async def test_orphans_are_swept(blobs, tmp_path) -> None:
    for letter in "abc":
        await blobs.write(f"file_{letter}", _chunks(b"x"), 10)
    (tmp_path / "files" / "incoming" / "file_half").write_bytes(b"x")
    for path in (tmp_path / "files").rglob("file_*"):
        if path.name != "file_c":
            os.utime(path, (1, 1))
    asked: list[str] = []

    async def known(keys: Collection[str]) -> set[str]:
        asked.extend(keys)
        return {"file_a"}

    assert await blobs.sweep(known) == 2
    assert sorted(asked) == ["file_a", "file_b"]
    assert _files(tmp_path) == ["file_a", "file_c"]


async def test_files_are_for_this_user_alone(blobs, tmp_path) -> None:
    await blobs.write(KEY, _chunks(b"x"), 10)
    place = tmp_path / "files" / "bc" / KEY
    assert place.stat().st_mode & 0o077 == 0
    assert place.parent.stat().st_mode & 0o077 == 0
