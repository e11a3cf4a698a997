import os
from pathlib import Path

import pytest

from insula.kit.folders import make_folder, sync


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced, in order."""
    paths: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: paths.append(os.readlink(f"/proc/self/fd/{fd}")))
    return paths


def test_every_folder_that_holds_a_new_one_is_synced(tmp_path: Path, synced: list[str]) -> None:
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, synced: list[str]) -> None:
    make_folder(tmp_path)
    assert synced == []


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")


def test_a_file_is_synced(tmp_path: Path, synced: list[str]) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"x")
    sync(file)
    assert synced == [str(file)]
