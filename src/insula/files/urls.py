"""Addresses of files: signed and good for an hour, or plain for public ones."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from sqlalchemy import Connection, insert, select

from insula.kit.clock import now_ms
from insula.storage.tables import facts

LIFE_SECONDS = 3600
_FACT = "file_url_key"
_KEY_BYTES = 32
_QUERY_MAX = 1000
"""Characters; what is longer is none of ours, and not taken apart."""
_NAMED = re.compile(
    rb"(file_\w{22})(?:/content\?expires=(\d{1,19})(?:&|\\u0026)signature=([\w-]{43}))?"
)


def signing_key(connection: Connection) -> bytes:
    """In a unit: return the installation's key for file addresses, made at the first call."""
    found = connection.scalar(select(facts.c.value).where(facts.c.name == _FACT))
    if found is not None:
        return bytes(found)
    key = secrets.token_bytes(_KEY_BYTES)
    connection.execute(insert(facts).values(name=_FACT, value=key))
    return key


def named_in(text: bytes) -> set[str]:
    """Return what may be ids of files in a text."""
    return {found[1].decode() for found in _NAMED.finditer(text)} if b"file_" in text else set()


class FileUrls:
    """Makes and checks addresses. ``base`` is where callers reach the server; it may be set late,
    when the port is known.
    """

    def __init__(self, base: str, key: bytes) -> None:
        self.base = base.rstrip("/")
        self._key = key

    def public(self, file_id: str) -> str:
        """Return the plain address, which only a PUBLIC file answers."""
        return f"{self.base}/files/{file_id}/content"

    def signed(self, file_id: str, now: int | None = None) -> str:
        """Return an address that is good for an hour from ``now`` (Unix milliseconds)."""
        expires = (now_ms() if now is None else now) // 1000 + LIFE_SECONDS
        query = urlencode({"expires": expires, "signature": self._sign(file_id, str(expires))})
        return f"{self.public(file_id)}?{query}"

    def good(self, file_id: str, expires: str, signature: str, now: int | None = None) -> bool:
        """Say whether a signature is ours and has not expired. Takes the same time for any."""
        right = hmac.compare_digest(
            self._sign(file_id, expires).encode(), signature.encode("utf-8", "replace")
        )
        if not (right and expires.isascii() and expires.isdigit() and len(expires) < 20):
            return False
        return (now_ms() if now is None else now) < int(expires) * 1000

    def read(self, url: str) -> tuple[str, bool] | None:
        """Return the id that an address of this installation names, and whether it is good."""
        head = f"{self.base}/files/"
        path, _, query = url.partition("#")[0].partition("?")
        file_id, _, rest = path.removeprefix(head).partition("/")
        if not path.startswith(head) or rest != "content":
            return None
        given = dict(parse_qsl(query)) if len(query) <= _QUERY_MAX else {}
        good = self.good(file_id, given.get("expires", ""), given.get("signature", ""))
        return file_id, good

    def moved(self, text: bytes, ids: Mapping[str, str]) -> bytes:
        """Return a text of JSON in which files have other ids, and signatures fitting these."""

        def renamed(found: re.Match[bytes]) -> bytes:
            old = found[1].decode()
            new = ids.get(old)
            if new is None:
                return found[0]
            if found[2] is None or self._sign(old, found[2].decode()) != found[3].decode():
                return found[0].replace(found[1], new.encode())
            query = urlsplit(self.signed(new)).query
            return f"{new}/content?{query}".encode()

        return _NAMED.sub(renamed, text)

    def _sign(self, file_id: str, expires: str) -> str:
        message = f"{file_id}\n{expires}".encode("utf-8", "replace")
        digest = hmac.new(self._key, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
