"""Office files are archives: whether one is sane, before anything is unpacked."""

import zipfile
from typing import BinaryIO

from insula.adapters.extraction.collector import Refused

_ENTRIES = 20_000
_ENCRYPTED = 0x1


def open_archive(file: BinaryIO, memory: int) -> zipfile.ZipFile:
    """Open an office file, and look at what it says it holds.

    Raises:
        Refused: it is broken, protected, or unpacks to more than could be held.
    """
    try:
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused("The file is damaged: it is no office document that can be opened") from error
    if len(entries) > _ENTRIES:
        raise Refused(f"The document has {len(entries):,} parts, more than {_ENTRIES:,}")
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Refused("The document is protected with a password; save it without one")
    # What is unpacked becomes objects several times as large.
    most = memory // 2
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > most:
        raise Refused(
            f"The document unpacks to {unpacked:,} bytes, more than {most:,} "
            "(half of INSULA_EXTRACT_MEMORY)"
        )
    return archive
