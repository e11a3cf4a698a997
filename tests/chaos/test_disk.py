import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.disk import Disk, Entry, File, Kind, Loss, build, compiler, loaded, read_log

needs_compiler = pytest.mark.skipif(
    compiler() is None and not os.environ.get("CI"), reason="no C compiler (apt-get install gcc)"
)

PREPARE = """
import os
def file(name, data=b"", sync=False):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY)
    os.write(fd, data)
    if sync: os.fsync(fd)
    os.close(fd)
def sync(name):
    fd = os.open(name, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


def after(library: Path, place: Path, program: str, loss: Loss = "everything") -> dict[str, bytes]:
    """Run a program in a folder that had a file ``old``; return what a power cut then leaves."""
    folder, restored, log = place / "disk", place / "restored", place / "log"
    for made in (folder, restored):
        made.mkdir()
    (folder / "old").write_bytes(b"old")
    disk = Disk(folder)
    environment = {**os.environ, **loaded(library, folder, log, sync_us=0)}
    command = [sys.executable, "-c", PREPARE + program]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=20)
    for entry in read_log(log):
        disk.take(entry)
    disk.restore(restored, loss, random.Random(1))
    return {
        str(path.relative_to(restored)): path.read_bytes()
        for path in restored.rglob("*")
        if path.is_file()
    }


OLD = {"old": b"old"}


@needs_compiler
@pytest.mark.parametrize(
    ("program", "left"),
    [
        ("", OLD),
        ("file('a', b'x')", OLD),
        ("file('a', b'x', sync=True)", OLD),
        ("file('a', b'x'); sync('.')", {**OLD, "a": b""}),
        ("file('a', b'x', sync=True); sync('.')", {**OLD, "a": b"x"}),
        ("file('a', b'x', sync=True); sync('.'); file('a', b'yz')", {**OLD, "a": b"x"}),
        ("file('old', b'new')", OLD),
        ("file('old', b'new', sync=True)", {"old": b"new"}),
        ("open('old', 'w').close()", OLD),
        ("open('old', 'w').close(); sync('old')", {"old": b""}),
        ("open('old', 'ab').write(b'er'); sync('old')", {"old": b"older"}),
        ("os.truncate('old', 1); sync('old')", {"old": b"o"}),
        ("f = open('old', 'r+b'); f.truncate(5); os.fsync(f.fileno())", {"old": b"old\0\0"}),
        ("os.unlink('old')", OLD),
        ("os.unlink('old'); sync('.')", {}),
        ("os.rename('old', 'a')", OLD),
        ("os.rename('old', 'a'); sync('.')", {"a": b"old"}),
        ("file('a', b'x', sync=True); os.replace('a', 'old'); sync('.')", {"old": b"x"}),
        ("file('a', b'x'); os.replace('a', 'old'); sync('.')", {"old": b""}),
        ("os.link('old', 'a'); sync('.')", {**OLD, "a": b"old"}),
        ("os.mkdir('b'); file('b/a', b'x', sync=True); sync('b')", OLD),
        ("os.mkdir('b'); file('b/a', b'x', sync=True); sync('.')", OLD),
        (
            "os.mkdir('b'); file('b/a', b'x', sync=True); sync('b'); sync('.')",
            {**OLD, "b/a": b"x"},
        ),
        (
            "fd = os.open('a', os.O_CREAT | os.O_RDWR); os.pwrite(fd, b'yy', 2); os.unlink('a');"
            "file('a', b'z', sync=True); os.pwrite(fd, b'x', 0); os.fsync(fd); sync('.')",
            {**OLD, "a": b"z"},
        ),
        ("os.writev(os.open('old', os.O_WRONLY), [b'n', b'ew']); sync('old')", {"old": b"new"}),
    ],
)
def test_what_a_power_cut_leaves(
    library: Path, tmp_path: Path, program: str, left: dict[str, bytes]
) -> None:
    assert after(library, tmp_path, program) == left


@needs_compiler
def test_a_file_that_is_written_through_a_map_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="through a map"):
        after(library, tmp_path, "import mmap; mmap.mmap(os.open('old', os.O_RDWR), 3)")


@needs_compiler
def test_what_stands_elsewhere_is_not_written_down(library: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert after(library, tmp_path, f"file({str(other / 'a')!r}, b'x', sync=True)") == OLD
    assert (tmp_path / "log").read_bytes() == b""


def test_any_part_of_what_was_not_synced_may_be_kept() -> None:
    file = File(bytearray(b"a" * 1024))
    file.pending.append((0, b"b" * 1024))
    seen = set()
    for seed in range(40):
        chance = random.Random(seed)
        seen.add(file.after_cut(lambda chance=chance: chance.random() < 0.5))  # type: ignore[misc]  # bound
    sectors = (b"a" * 512, b"b" * 512)
    assert seen == {one + other for one in sectors for other in sectors}


def test_a_sync_keeps_what_was_written_before_it_began() -> None:
    disk = Disk(Path("/nowhere"))
    for kind, place, data in (
        (Kind.CREATED, 0, b""),
        (Kind.WRITTEN, 0, b"one"),
        (Kind.SYNCING, 1, b""),
        (Kind.WRITTEN, 3, b"two"),
        (Kind.SYNCING, 2, b""),
        (Kind.WRITTEN, 6, b"three"),
        (Kind.SYNCED, 1, b""),
    ):
        disk.take(Entry(kind, 0.0, "/nowhere/a", "", 7, place, data))
    file = disk._inodes[7]
    assert bytes(file.durable) == b"one"
    disk.take(Entry(Kind.SYNCED, 0.0, "/nowhere/a", "", 7, 2, b""))
    assert bytes(file.durable) == b"onetwo"
