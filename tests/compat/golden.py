"""Comparing what clients get with what they always got, byte for byte.

Ids, times and durations are replaced by their kind and number. To accept a change that is meant,
delete the file and run the tests twice: the first run writes it and fails.
"""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
_IDS = re.compile(rb"(app|work|workv|key|run|file)_[1-9A-HJ-NP-Za-km-z]{22}")
_TIMES = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_MOMENTS = re.compile(rb'"(start|end|time|for_ms)":[0-9]+')


def plain(text: bytes) -> bytes:
    """Replace what differs each time by names that do not."""
    seen: dict[bytes, int] = {}

    def name(match: re.Match[bytes]) -> bytes:
        number = seen.setdefault(match[0], len(seen) + 1)
        return b"%s_#%d" % (match[1], number)

    text = _TIMES.sub(b"TIME", _IDS.sub(name, text))
    return _MOMENTS.sub(rb'"\1":0', text).rstrip(b"\n") + b"\n"


def compare(name: str, text: bytes) -> None:
    """Fail the calling test unless ``text`` is what the file of this name holds."""
    golden = FOLDER / name
    found = plain(text)
    if not golden.exists():
        golden.write_bytes(found)
        pytest.fail(f"{golden.name} did not exist and was written: read it and commit it")
    assert found == golden.read_bytes()
