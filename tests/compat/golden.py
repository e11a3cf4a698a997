"""Comparing what clients get with what they always got, byte for byte.

Ids, times, durations, signatures and secrets are replaced by their kind and number. To accept a
change that is meant, ``make golden`` writes the files anew: read the difference and commit it.
"""

import difflib
import json
import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
WRITES = os.environ.get("INSULA_GOLDEN") == "write"
_IDS = re.compile(rb"\b([a-z]{2,8})_[1-9A-HJ-NP-Za-km-z]{22}\b")
_TIMES = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_MOMENTS = re.compile(rb'"(start|end|time|for_ms|ms)":[0-9.]+')
_PLACES = re.compile(rb"http://127\.0\.0\.1:[0-9]+")
_SIGNED = re.compile(rb"expires=[0-9]+&signature=[\w-]+")
_SECRETS = re.compile(rb"\b(whsec_|ins_|/hooks/)[\w+/=-]+")


def plain(text: bytes) -> bytes:
    """Replace what differs each time by names that do not."""
    seen: dict[bytes, int] = {}

    def name(match: re.Match[bytes]) -> bytes:
        number = seen.setdefault(match[0], len(seen) + 1)
        return b"%s_#%d" % (match[1], number)

    text = _TIMES.sub(b"TIME", _IDS.sub(name, text))
    text = _SIGNED.sub(b"SIGNED", _PLACES.sub(b"http://HERE", text))
    text = _SECRETS.sub(rb"\1SECRET", text)
    return _MOMENTS.sub(rb'"\1":0', text).rstrip(b"\n") + b"\n"


def compare(name: str, text: bytes) -> None:
    """Fail the calling test, with what differs, unless ``text`` is what the file of this name
    holds."""
    golden = FOLDER / name
    found = plain(text)
    if WRITES:
        golden.write_bytes(found)
        return
    if not golden.exists():
        pytest.fail(f"there is no {name}: `make golden` writes it; read it and commit it")
    held = golden.read_bytes()
    if found != held:
        told = difflib.unified_diff(_lines(held), _lines(found), name, "now", lineterm="")
        pytest.fail("\n".join([f"{name} is another:", *told]), pytrace=False)


def _lines(text: bytes) -> list[str]:
    """Lay JSON out over lines; a stream of events has its own."""
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False).splitlines()
    except ValueError:
        return text.decode(errors="replace").splitlines()
