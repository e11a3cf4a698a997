"""The keys under which secrets are stored, and sealing and opening with them.

Sealed is AES-256-GCM: a version byte, the id of the key, a nonce, the text and its tag. What a text
is bound to (its app, its name) is not stored: a row that is copied elsewhere does not open.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from insula.kit.folders import sync
from insula.settings import SettingsError

FILE = "secret.keys"
OVERHEAD = 1 + 8 + 12 + 16
"""Bytes that a sealed text is longer than the text."""
_VERSION = b"\x01"
_KEY = 32
_ID = 8
_NONCE = 12
_HEX = re.compile(r"[0-9a-fA-F]{64}\Z")
_HOW = "32 random bytes in base64, such as `openssl rand -base64 32` prints"


class Unreadable(Exception):
    """A stored secret cannot be opened; the message says why, and what to do."""


class KeyRing:
    """Keys, of which the first one seals and all open. ``file`` keeps those that we made."""

    def __init__(self, named: Sequence[bytes], file: Path | None = None) -> None:
        self._named = list(named)
        self._file = file
        self._kept = _read(file) if file is not None and file.exists() else []
        if not self._named and not self._kept:
            self._keep([os.urandom(_KEY)])

    @property
    def current(self) -> str:
        """Return the id of the key that seals."""
        return key_id((self._named or self._kept)[0])

    @property
    def ids(self) -> frozenset[str]:
        """Return the ids of the keys that open."""
        return frozenset(map(key_id, (*self._named, *self._kept)))

    def seal(self, text: str, *bound: str) -> bytes:
        """Encrypt a text that opens only where it is bound to the same."""
        key, nonce = (self._named or self._kept)[0], os.urandom(_NONCE)
        sealed = AESGCM(key).encrypt(nonce, text.encode(), _bound(bound))
        return _VERSION + bytes.fromhex(key_id(key)) + nonce + sealed

    def open(self, sealed: bytes, *bound: str) -> str:
        """Decrypt.

        Raises:
            Unreadable: its key is not here, or it was altered, or bound to something else.
        """
        name, nonce = sealed[1 : 1 + _ID].hex(), sealed[1 + _ID : 1 + _ID + _NONCE]
        key = next((k for k in (*self._named, *self._kept) if key_id(k) == name), None)
        if key is None:
            raise Unreadable(missing([name]))
        try:
            return AESGCM(key).decrypt(nonce, sealed[1 + _ID + _NONCE :], _bound(bound)).decode()
        except (InvalidTag, ValueError):
            raise Unreadable(
                f"{' '.join(bound[:1]) or 'a secret'} does not open: it was altered, or copied "
                "from elsewhere; write its value again"
            ) from None

    def renew(self) -> frozenset[str]:
        """Make a new key that seals from now on, where we keep the keys ourselves.

        Return the ids of the kept keys that seal no more.

        Raises:
            OSError: the key could not be stored; the one before goes on sealing.
        """
        seal_no_more = self._kept
        if not self._named:
            self._keep([os.urandom(_KEY), *self._kept])
        return frozenset(map(key_id, seal_no_more))

    def forget(self, ids: frozenset[str]) -> None:
        """Let go of kept keys that seal no more, and that nothing needs to open.

        Raises:
            OSError: that could not be stored; they are still here.
        """
        kept = [key for key in self._kept if key_id(key) not in ids]
        if kept != self._kept:
            self._keep(kept)

    def _keep(self, keys: list[bytes]) -> None:
        """Keep these keys; none of them is used before it is on the disk."""
        if self._file is not None:
            _write(self._file, keys)
        self._kept = keys


def key_id(key: bytes) -> str:
    """Name a key without telling anything of it."""
    return hashlib.sha256(b"insula key " + key).digest()[:_ID].hex()


def sealed_by(sealed: bytes) -> str:
    """Return the id of the key that sealed this."""
    return sealed[1 : 1 + _ID].hex()


def missing(ids: Sequence[str]) -> str:
    """Say which keys are missing, and what to do."""
    return (
        f"Stored secrets are encrypted with a key that is not here ({', '.join(ids)}). Put it "
        f"back: into INSULA_SECRET_KEYS, or as the file {FILE} of the data folder. If it is lost "
        "for ever, start once with INSULA_SECRET_KEYS_LOST=true, which removes what it encrypted"
    )


def parse_keys(text: str) -> list[bytes]:
    """Read ``INSULA_SECRET_KEYS``: a comma list, the first of which encrypts.

    Raises:
        SettingsError: an entry is no key; says which one, never what it is.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise SettingsError(f"INSULA_SECRET_KEYS is empty: give {_HOW}, or leave it unset")
    return [
        _parse(entry, f"entry {at} of INSULA_SECRET_KEYS") for at, entry in enumerate(entries, 1)
    ]


def open_ring(folder: Path, keys: str | None) -> KeyRing:
    """Return the ring of an installation: its named keys, and those in its data folder.

    Where there is none, one is made and kept in the data folder, readable by its owner alone.

    Raises:
        SettingsError: a key cannot be read; names where it stands.
    """
    return KeyRing([] if keys is None else parse_keys(keys), folder / FILE)


def _read(file: Path) -> list[bytes]:
    lines = file.read_text("ascii", "replace").split()
    if not lines:
        raise SettingsError(f"{file} is empty: put its keys back from a backup, or remove the file")
    return [_parse(line, f"line {at} of {file}") for at, line in enumerate(lines, 1)]


def _write(file: Path, keys: Sequence[bytes]) -> None:
    """Replace the file; without keys there is none: an empty one is what a damage leaves."""
    if not keys:
        file.unlink(missing_ok=True)
        sync(file.parent)
        return
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    content = b"".join(base64.b64encode(key) + b"\n" for key in keys)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
    sync(draft)
    draft.replace(file)
    sync(file.parent)


def _parse(text: str, where: str) -> bytes:
    if _HEX.match(text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY:
        raise SettingsError(f"{where} is no key: it must be {_HOW}")
    return key


def _bound(parts: Sequence[str]) -> bytes:
    return b"\0".join(part.encode() for part in parts)
