"""Files below ``DIR/files``: written aside, synced, then renamed, so that what is there is whole.

Every step opens the file anew and runs on a thread, to its end, whoever cancels.
"""

import asyncio
import errno
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from insula.adapters.blobs.port import Known, MissingBlob
from insula.errors import TooLarge, Unavailable
from insula.kit.folders import make_folder, sync
from insula.kit.tasks import uninterrupted

T = TypeVar("T")

_KEY = re.compile(r"[A-Za-z0-9_]{1,100}\Z")
_WRITE_BYTES = 1024 * 1024
_READ_BYTES = 256 * 1024
_SWEEP_BATCH = 500
_INCOMING = "incoming"
_RETRY_SECONDS = 30
_SYNCED_TOGETHER = 2
"""Files that are synced at once; the journal of runs syncs to the same disk, and goes first."""


class DiskBlobs:
    """Implements ``Blobs`` in a folder, which is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / _INCOMING
        self._durable: set[Path] = set()
        """Folders whose names are known to be on the disk."""
        self._syncing = asyncio.Semaphore(_SYNCED_TOGETHER)
        make_folder(self._incoming)

    def _place(self, key: str) -> Path:
        """Return where a key is stored: a thousand folders, by its last two letters."""
        if not _KEY.match(key):
            raise MissingBlob(key)
        return self._folder / key[-2:].lower() / key

    async def write(self, key: str, chunks: AsyncIterable[bytes], limit: int) -> int:
        """Store a stream under a new key; return its size. Nothing is stored if this raises.

        Raises:
            TooLarge: there are more than ``limit`` bytes.
            Unavailable: the disk is full or broken.
        """
        # Aside under a name of its own: what a crash left there is not in the way.
        aside, place = self._incoming / f"{key}.{os.urandom(4).hex()}", self._place(key)
        size = 0
        waiting: list[bytes] = []
        held = 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"The file has more than {limit} bytes (INSULA_FILE_MAX).")
                waiting.append(chunk)
                held += len(chunk)
                if held >= _WRITE_BYTES:
                    # A cancel must not remove what a thread is only about to create.
                    await uninterrupted(_on_disk(_append, aside, b"".join(waiting)))
                    waiting, held = [], 0
            async with self._syncing:  # a small one takes this one turn of a thread
                await uninterrupted(_on_disk(self._publish, aside, place, b"".join(waiting)))
        except BaseException:
            aside.unlink(missing_ok=True)
            place.unlink(missing_ok=True)
            raise
        return size

    async def read(self, key: str) -> bytes:
        """Return all the bytes. Raises ``MissingBlob``."""
        return await _on_disk(self._place(key).read_bytes)

    async def open_stream(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes from ``start`` up to ``end`` in pieces. Raises ``MissingBlob``."""
        place = self._place(key)
        while end is None or start < end:
            wanted = _READ_BYTES if end is None else min(_READ_BYTES, end - start)
            piece = await _on_disk(_piece, place, start, wanted)
            if not piece:
                return
            start += len(piece)
            yield piece

    async def copy(self, source: str, key: str) -> None:
        """Store under another key what is stored under ``source``; each is deleted for itself.

        Both are names of the same bytes, where the disk can do that.
        """
        aside = self._incoming / f"{key}.{os.urandom(4).hex()}"
        async with self._syncing:
            work = _on_disk(self._copy, self._place(source), aside, self._place(key))
            await uninterrupted(work)

    async def delete(self, key: str) -> None:
        """Remove it; nothing happens if it is gone already."""
        with suppress(MissingBlob):
            await _on_disk(self._place(key).unlink)

    async def sweep(self, known: Known, older_than: float = 3600.0) -> int:
        """Remove what nothing refers to and is older, in seconds; return how many.

        Whatever is younger may belong to a row that is about to be committed.
        """
        before = time.time() - older_than
        removed = await _on_disk(self._sweep_incoming, before)
        for folder in await _on_disk(self._folders):
            keys = await _on_disk(_older, folder, before)
            for at in range(0, len(keys), _SWEEP_BATCH):
                batch = keys[at : at + _SWEEP_BATCH]
                for key in set(batch) - set(await known(batch)):
                    await self.delete(key)
                    removed += 1
        return removed

    def _publish(self, aside: Path, place: Path, rest: bytes) -> None:
        """Make it whole and durable, then visible, then the visibility durable."""
        _append(aside, rest, durable=True)
        self._show(aside, place)

    def _copy(self, source: Path, aside: Path, place: Path) -> None:
        try:
            _link(source, aside)
            self._show(aside, place)
        finally:
            aside.unlink(missing_ok=True)

    def _show(self, aside: Path, place: Path) -> None:
        if place.parent not in self._durable:
            # Even if it is there: who made it a moment ago may not have synced it yet.
            place.parent.mkdir(mode=0o700, exist_ok=True)
            sync(self._folder)
            self._durable.add(place.parent)
        aside.rename(place)
        sync(place.parent)

    def _sweep_incoming(self, before: float) -> int:
        removed = 0
        for name in _older(self._incoming, before):
            (self._incoming / name).unlink(missing_ok=True)
            removed += 1
        return removed

    def _folders(self) -> list[Path]:
        return [each for each in self._folder.iterdir() if each.is_dir() and each.name != _INCOMING]


async def _on_disk(action: Callable[..., T], *arguments: object) -> T:
    """Run on a thread, and tell errors of the disk in our words."""
    try:
        return await asyncio.to_thread(action, *arguments)
    except FileNotFoundError as error:
        raise MissingBlob(str(error.filename)) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Unavailable(
            "The disk of the data folder is full." if full else "The data folder cannot be used.",
            retry_after=_RETRY_SECONDS,
        ) from error


def _append(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Append to a file, which is made if it is not there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(descriptor)


def _link(source: Path, aside: Path) -> None:
    """Give a file another name, or copy it where the disk knows no second names."""
    try:
        aside.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, aside)
        _append(aside, b"", durable=True)
        return
    os.utime(aside)  # as new, so that no sweep takes it before its row is there


def _piece(path: Path, start: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def _older(folder: Path, before: float) -> list[str]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # published, or deleted, at this moment
                if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < before:
                    found.append(entry.name)
    return found
