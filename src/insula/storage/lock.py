"""The lock on the data folder: one process at a time, however the last one ended."""

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import NamedTuple

FILE = "insula.lock"
SOCKET = "insula.sock"
"""Where the holder, if it serves, is reached by the commands of the same user."""
_CONTENT_MAX = 4096


class Holder(NamedTuple):
    """Who holds a folder: its process, and where it listens, as far as it has said so."""

    pid: int | None
    address: str | None


class FolderLocked(Exception):
    """Another process holds the folder."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        who = f"process {holder.pid}" if holder.pid else "another process"
        where = f" (listening on {holder.address})" if holder.address else ""
        super().__init__(
            f"The data folder {folder} is in use by {who}{where}. Stop it, or use another folder."
        )
        self.holder = holder


class FolderLock:
    """An exclusive lock on a folder, held from ``acquire`` to ``release`` or the process's end.

    ``flock`` and not ``fcntl``: the latter is lost as soon as anything in the process closes the
    file. Programs that this process starts do not inherit it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def acquire(self, address: str | None = None) -> None:
        """Take the lock and write down who holds it.

        Raises:
            FolderLocked: another process (or another lock of this one) holds it.
        """
        if self._descriptor is not None:
            raise RuntimeError("This lock is held already.")
        descriptor = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            found = _read(descriptor)
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise FolderLocked(self.folder, found) from None
        self._descriptor = descriptor
        self.announce(address)

    def announce(self, address: str | None) -> None:
        """Write down where this process listens, once it is known."""
        if self._descriptor is None:
            raise RuntimeError("This lock is not held.")
        content = json.dumps({"pid": os.getpid(), "address": address}).encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def release(self) -> None:
        """Give the folder free. Nothing happens where it is not held."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def holder(folder: Path) -> Holder | None:
    """Say who holds a folder; ``None`` if nobody does."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder:
    try:
        content = json.loads(os.pread(descriptor, _CONTENT_MAX, 0))
    except ValueError:  # just locked and not yet written
        return Holder(None, None)
    pid, address = content.get("pid"), content.get("address")
    return Holder(
        pid if isinstance(pid, int) else None, address if isinstance(address, str) else None
    )
