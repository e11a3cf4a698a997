"""Folders and files whose names survive a power cut: a name is safe once its folder is synced."""

import os
from pathlib import Path


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder and those above it that are not there; nothing happens if it is there."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
