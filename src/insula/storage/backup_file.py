"""Backups as files: frames one after another, each with its length, compressed, and whole or not
there at all.
"""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from insula.kit.folders import sync
from insula.storage.portable import FORMAT, Damaged, End, Frame, Head

MAGIC = b"insula backup\n"
_LENGTH = 4
_FRAME_MAX = 1024 * 1024 * 1024
_LEVEL = 1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def write_backup(path: Path, frames: Iterable[Frame]) -> End:
    """Write a new file, readable by its owner alone: aside, synced, then under its name.

    Raises:
        FileExistsError: there is such a file.
    """
    if path.exists():
        raise FileExistsError(str(path))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            end = _write(file, frames)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)  # unlike a rename, it replaces nothing
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)
    return end


def _write(file: BinaryIO, frames: Iterable[Frame]) -> End:
    end: End | None = None
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVEL, mtime=0) as packed:
        packed.write(MAGIC)
        for frame in frames:
            data = _encoder.encode(frame)
            packed.write(len(data).to_bytes(_LENGTH, "big") + data)
            if isinstance(frame, End):
                end = frame
    assert end is not None
    return end


def read_backup(file: BinaryIO) -> Iterator[Frame]:
    """Give the frames of a backup, up to its end; the first one is its head.

    Raises:
        Damaged: it is no backup, of a later format, or not whole.
    """
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            if unpacked.read(len(MAGIC)) != MAGIC:
                raise Damaged("It is no backup of Insula.")
            yield from _read(cast(BinaryIO, unpacked))
    except gzip.BadGzipFile as error:
        raise Damaged("It is no backup of Insula, or it is damaged.") from error
    except (EOFError, zlib.error) as error:
        raise Damaged("It is damaged, or ends too early.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"It is damaged: {error}") from error


def _read(unpacked: BinaryIO) -> Iterator[Frame]:
    first = True
    while True:
        length = int.from_bytes(_exactly(unpacked, _LENGTH), "big")
        if length > _FRAME_MAX:
            raise Damaged("It is damaged: a part of it is too long.")
        frame = _decoder.decode(_exactly(unpacked, length))
        if first and isinstance(frame, Head) and frame.format > FORMAT:
            raise Damaged(f"It was made by a newer version of Insula ({frame.program}).")
        first = False
        # The rest is the file's own checksum, which is compared where it ends.
        if isinstance(frame, End) and unpacked.read(1):
            raise Damaged("It is damaged: something follows its end.")
        yield frame
        if isinstance(frame, End):
            return


def _exactly(unpacked: BinaryIO, length: int) -> bytes:
    data = unpacked.read(length)
    if len(data) < length:
        raise Damaged("It is damaged, or ends too early.")
    return data
