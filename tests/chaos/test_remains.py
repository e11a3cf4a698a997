import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.history import Heard, History, Kept, Listening, Told
from tests.chaos.remains import losses

CONTENT = b"content"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with one run that has completed, one that waits, and one file."""
    with closing(sqlite3.connect(tmp_path / "insula.db")) as connection, connection:
        connection.execute("CREATE TABLE runs (id TEXT, status TEXT, seq INTEGER)")
        connection.execute("CREATE TABLE files (id TEXT)")
        connection.execute(
            "INSERT INTO runs VALUES ('done', 'COMPLETED', 5), ('new', 'PENDING', 0)"
        )
        connection.execute("INSERT INTO files VALUES ('file_xyz')")
    blob = tmp_path / "files" / "yz" / "file_xyz"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT)
    return tmp_path


def told(run_id: str, status: str, at: float = 1.0) -> History:
    return History(0, told=[Told(at - 0.5, at, run_id, status)])


def heard(run_id: str, number: int) -> History:
    event = Heard(1.0, run_id, number, "step", {})
    return History(0, streams=[Listening(run_id, [event])])


def kept(content: bytes) -> History:
    return History(0, kept=[Kept(1.0, "file_xyz", hashlib.sha256(content).hexdigest())])


@pytest.mark.parametrize(
    "history",
    [
        told("done", "COMPLETED"),
        told("done", "RUNNING"),
        told("new", "PENDING"),
        told("gone", "COMPLETED", at=3.0),
        heard("done", 5),
        kept(CONTENT),
    ],
)
def test_nothing_is_lost(data: Path, history: History) -> None:
    assert losses(data, [history], until=2.0) == []


@pytest.mark.parametrize(
    "history",
    [
        told("gone", "PENDING"),
        told("gone", "COMPLETED"),
        told("done", "CANCELLED"),
        told("new", "RUNNING"),
        told("new", "COMPLETED"),
        heard("done", 6),
        heard("gone", 1),
        kept(b"other"),
        History(0, kept=[Kept(1.0, "file_gone", "")]),
    ],
)
def test_each_loss_is_found(data: Path, history: History) -> None:
    assert len(losses(data, [history], until=2.0)) == 1


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lambda file: file.unlink(), "gone"),
        (lambda file: file.write_bytes(b""), "no such table"),
        (lambda file: file.write_bytes(b"x" * 8192), "cannot be read"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:4096] + b"\xff" * 8192),
            "damaged|cannot",
        ),
    ],
)
def test_a_database_that_is_harmed_is_found(
    data: Path, harm: Callable[[Path], object], found: str
) -> None:
    harm(data / "insula.db")
    (loss,) = losses(data, [told("done", "COMPLETED")], until=2.0)
    assert any(word in loss for word in found.split("|"))
