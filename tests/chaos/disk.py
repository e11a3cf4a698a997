"""What would stand on a disk after a power cut: reads what ``disk.c`` wrote down of a process.

The disk is as forgetful as one can be that SQLite is made for:

- bytes written, and a file's new length, are durable once that file is synced, and not before;
- a name (new, renamed, removed; a folder's too) is durable once the folder that holds it is synced,
  however often the file itself is;
- what is not durable is lost, or kept in any part and any order, in sectors of 512 bytes: as the
  disk's cache had it. ``Loss`` says which.

What is written through a memory map leaves no trace here; SQLite writes so to its ``-shm`` files
alone, which are lost whole, as they may be.
"""

import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal, NamedTuple

SECTOR = 512
SOURCE = Path(__file__).with_name("disk.c")
_HEAD = struct.Struct("<IIIIQQQQ")

Loss = Literal["everything", "something"]


class Kind(IntEnum):
    """What happened, as ``disk.c`` numbers it."""

    CREATED = 1
    WRITTEN = 2
    CUT = 3
    SYNCING = 4
    SYNCED = 5
    RENAMED = 6
    REMOVED = 7
    MADE = 8
    LINKED = 9
    MAPPED = 10


class Entry(NamedTuple):
    """One change; ``at`` is CLOCK_MONOTONIC in seconds, ``place`` an offset, a length or a number
    of a sync.
    """

    kind: Kind
    at: float
    first: str
    second: str
    inode: int
    place: int
    data: bytes


def compiler() -> str | None:
    """Return the C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compile ``disk.c``; return the library to load before the C library."""
    made = folder / "disk.so"
    command = [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return made


def loaded(library: Path, folder: Path, log: Path, sync_us: int = 1_000) -> dict[str, str]:
    """Return the environment under which a process writes to such a disk."""
    return {
        "LD_PRELOAD": str(library),
        "INSULA_DISK_FOLDER": str(folder),
        "INSULA_DISK_LOG": str(log),
        "INSULA_DISK_SYNC_US": str(sync_us),
    }


def read_log(path: Path) -> list[Entry]:
    """Read what happened, in order; the last entry may be torn by the process's end."""
    content = path.read_bytes()
    entries = []
    at = 0
    while at + _HEAD.size <= len(content):
        kind, first, second, _, when, inode, place, size = _HEAD.unpack_from(content, at)
        start = at + _HEAD.size
        end = start + first + second + size
        if end > len(content):
            break
        names = content[start : start + first + second].decode()
        entry = Entry(
            Kind(kind), when / 1e9, names[:first], names[first:], inode, place,
            content[end - size : end],
        )  # fmt: skip
        entries.append(entry)
        at = end
    return entries


Change = tuple[int, bytes | None]
"""Bytes at a place; ``None``: the file is cut, or made longer, to that length."""


@dataclass(slots=True, eq=False)
class File:
    """What of a file is durable, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    synced: int = 0
    """How many changes are durable; with ``pending``, all there were."""

    @property
    def changes(self) -> int:
        return self.synced + len(self.pending)

    def sync(self, until: int) -> None:
        """Make so many of all changes durable, from the first on."""
        count = max(0, until - self.synced)
        for change in self.pending[:count]:
            _apply(self.durable, change)
        del self.pending[:count]
        self.synced += count

    def after_cut(self, keeps: Callable[[], bool]) -> bytes:
        """Return what is read after a power cut; ``keeps`` decides over each sector in doubt."""
        content = bytearray(self.durable)
        for place, data in self.pending:
            if data is None:
                if keeps():
                    _apply(content, (place, None))
                continue
            for start in range(0, len(data), SECTOR):
                if keeps():
                    _apply(content, (place + start, data[start : start + SECTOR]))
        return bytes(content)


def _apply(content: bytearray, change: Change) -> None:
    place, data = change
    if data is None:
        del content[place:]
        content.extend(bytes(place - len(content)))
        return
    if len(content) < place:
        content.extend(bytes(place - len(content)))
    content[place : place + len(data)] = data


Named = File | None
"""What a name stands for; ``None``: a folder."""


class Disk:
    """A folder on a disk, from what stood there before a process began, change by change.

    ``forgets_syncs``: the disk lies, and no sync makes anything durable.
    """

    def __init__(self, folder: Path, *, forgets_syncs: bool = False) -> None:
        self.folder = folder
        self._forgets = forgets_syncs
        self._inodes: dict[int, File] = {}
        self._names: dict[str, Named] = {}
        self._syncing: dict[int, tuple[File | None, int, dict[str, Named]]] = {}
        for path in sorted(folder.rglob("*")):
            self._found(path)
        self._durable = dict(self._names)

    def _found(self, path: Path) -> None:
        if path.is_dir():
            self._names[str(path)] = None
        elif path.is_file():
            file = File(bytearray(path.read_bytes()))
            self._names[str(path)] = self._inodes[path.stat().st_ino] = file

    def take(self, entry: Entry) -> None:
        """Let one change happen."""
        match entry.kind:
            case Kind.WRITTEN | Kind.CUT:
                file = self._inodes.get(entry.inode)
                if file is not None:  # else it was there before, and is none of a program's files
                    data = entry.data if entry.kind is Kind.WRITTEN else None
                    file.pending.append((entry.place, data))
            case Kind.SYNCING:
                self._begin_sync(entry)
            case Kind.SYNCED:
                self._end_sync(entry)
            case Kind.MAPPED:
                assert entry.first.endswith("-shm"), f"{entry.first} is written through a map"
            case _:
                self._rename(entry)

    def _rename(self, entry: Entry) -> None:
        names = self._names
        match entry.kind:
            case Kind.CREATED:
                names[entry.first] = self._inodes[entry.inode] = File()
            case Kind.MADE:
                names[entry.first] = None
            case Kind.RENAMED:
                names[entry.second] = names.pop(entry.first)
            case Kind.LINKED:
                names[entry.second] = names[entry.first]
            case _:
                names.pop(entry.first, None)

    def _begin_sync(self, entry: Entry) -> None:
        file = self._inodes.get(entry.inode)
        held = {}
        if file is None:
            held = {n: o for n, o in self._names.items() if n.rpartition("/")[0] == entry.first}
        self._syncing[entry.place] = (file, file.changes if file else 0, held)

    def _end_sync(self, entry: Entry) -> None:
        file, until, held = self._syncing.pop(entry.place)
        if self._forgets:
            return
        if file is not None:
            file.sync(until)
            return
        for name in [n for n in self._durable if n.rpartition("/")[0] == entry.first]:
            del self._durable[name]
        self._durable.update(held)

    def restore(self, place: Path, loss: Loss, chance: random.Random) -> None:
        """Write into an empty folder what stands on the disk if the power goes now."""

        def keeps() -> bool:
            return loss == "something" and chance.random() < 0.5

        names = dict(self._durable)
        for name in sorted(names.keys() | self._names.keys()):
            if names.get(name, name) is not self._names.get(name, name) and keeps():
                if name in self._names:
                    names[name] = self._names[name]
                else:
                    del names[name]
        for name, named in _reachable(names, str(self.folder)):
            target = place / Path(name).relative_to(self.folder)
            if named is None:
                target.mkdir(exist_ok=True)
            elif not name.endswith("-shm"):
                target.write_bytes(named.after_cut(keeps))


def _reachable(names: dict[str, Named], root: str) -> Iterator[tuple[str, Named]]:
    """Give the names whose folders all stand, folders before what is in them."""
    folders = {root}
    for name in sorted(names, key=lambda each: each.count("/")):
        if name.rpartition("/")[0] in folders:
            if names[name] is None:
                folders.add(name)
            yield name, names[name]
