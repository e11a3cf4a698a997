import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from insula.storage.lock import FILE, FolderLock, FolderLocked, Holder, holder

HOLD = """
import sys, time
from pathlib import Path
from insula.storage.lock import FolderLock
FolderLock(Path(sys.argv[1])).acquire("127.0.0.1:8000")
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_holder_is_refused_with_who_and_where(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as lock:
        lock.announce("127.0.0.1:8123")
        with pytest.raises(FolderLocked, match=rf"process {os.getpid()} .*127\.0\.0\.1:8123"):
            FolderLock(tmp_path).acquire()
        assert holder(tmp_path) == Holder(os.getpid(), "127.0.0.1:8123")
    assert holder(tmp_path) is None


def test_released_it_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with FolderLock(tmp_path):
            assert holder(tmp_path) == Holder(os.getpid(), None)


def test_asking_who_holds_it_does_not_lose_it(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / FILE).read_text()
        holder(tmp_path)
        with pytest.raises(FolderLocked):
            FolderLock(tmp_path).acquire()


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / FILE).write_text("{")
        with pytest.raises(FolderLocked, match="another process"):
            FolderLock(tmp_path).acquire()


def test_nobody_holds_an_empty_folder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None


def test_misuse_is_said(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(RuntimeError):
        lock.announce("x")
    lock.release()
    with lock, pytest.raises(RuntimeError):
        lock.acquire()


def test_it_vanishes_with_a_killed_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(FolderLocked, match=f"process {process.pid} ") as caught:
            FolderLock(tmp_path).acquire()
        assert caught.value.holder == Holder(process.pid, "127.0.0.1:8000")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    with FolderLock(tmp_path):
        assert holder(tmp_path) == Holder(os.getpid(), None)


def test_started_programs_do_not_inherit_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.acquire()
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        lock.release()
        with FolderLock(tmp_path):
            assert child.poll() is None
        child.communicate(b"\n", timeout=10)
