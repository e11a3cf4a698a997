"""The files that belong to a database's rows: which are missing, and copying all of them."""

import os
import shutil
from contextlib import aclosing
from pathlib import Path

from sqlalchemy import Connection, select

from insula.adapters.blobs.port import Blobs, MissingBlob
from insula.cli.database.progress import Progress
from insula.kit.folders import make_folder, sync
from insula.runs.audit import EXAMPLES, Finding
from insula.storage.tables import files

_INCOMING = "incoming"


def stored_files(connection: Connection) -> list[str]:
    """Return the keys of all files that have a row."""
    return list(connection.scalars(select(files.c.id).order_by(files.c.id)))


async def missing_files(blobs: Blobs, keys: list[str], progress: Progress) -> Finding:
    """Look for the bytes of every file."""
    check = "every file has its bytes"
    missing = []
    for number, key in enumerate(keys, 1):
        progress(check, number)
        try:
            async with aclosing(blobs.open_stream(key, 0, 1)) as stream:
                async for _ in stream:
                    break
        except MissingBlob:
            missing.append(key)
    return Finding(check, len(missing), missing[:EXAMPLES], len(keys))


def copy_files(source: Path, target: Path, progress: Progress) -> int:
    """Copy every file that is not there yet, whole and synced; return how many there are."""
    make_folder(target)
    count = 0
    for folder in sorted(source.iterdir()) if source.is_dir() else ():
        if not folder.is_dir() or folder.name == _INCOMING:
            continue
        make_folder(target / folder.name)
        for file in sorted(folder.iterdir()):
            _copy_file(file, target / folder.name / file.name)
            count += 1
            progress("files", count)
        sync(target / folder.name)
    return count


def _copy_file(source: Path, target: Path) -> None:
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copy2(source, aside)
        sync(aside)
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)
