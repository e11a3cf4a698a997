"""Keys: made, digested, recognised. Those in use are remembered, so that the database rests."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from insula.apps import repository
from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.storage.database import Database
from insula.web.auth import Principal

_log = structlog.get_logger(__name__)

REMEMBERED = 10_000
"""Keys that are remembered at once."""
FRESH_MS = 30_000
"""How long a key is believed without asking the database; another node may have revoked it."""
TOUCH_MS = 60_000
"""How often, at most, a key's last use is written."""

_FORM = re.compile(r"ins_[A-Za-z0-9_-]{43}")


def new_key() -> str:
    """Make a key: ``ins_`` and 256 random bits."""
    return f"ins_{secrets.token_urlsafe(32)}"


def digest(key: str) -> bytes:
    """Return what is stored of a key. It is random, so that one fast hash suffices."""
    return hashlib.sha256(key.encode()).digest()


@dataclass(slots=True)
class _Known:
    principal: Principal
    until: int
    touched: int


class Authenticator:
    """The ``authenticate`` port of the web layer, over the table of keys."""

    def __init__(self, database: Database, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._used: dict[str, int] = {}
        self._forgotten = 0
        self.fresh_ms = FRESH_MS
        self.watchers: list[Callable[[str], None]] = []
        """Called with an app's id when keys of it were revoked in this process."""

    async def __call__(self, key: str) -> Principal | None:
        """Return whose key this is; ``None`` if it is unknown, expired or revoked."""
        if _FORM.fullmatch(key) is None:
            return None
        digested = digest(key)
        now = self._clock()
        known = self._known.get(digested)
        if known is None or now >= known.until:
            known = await self._look_up(digested, now)
            if known is None:
                return None
        if now - known.touched >= TOUCH_MS:
            known.touched = now
            self._used[known.principal.key_id] = now
        return known.principal

    async def _look_up(self, digested: bytes, now: int) -> _Known | None:
        forgotten = self._forgotten
        row = await self._database.read(partial(repository.find_key_by_digest, digest=digested))
        if row is None or not hmac.compare_digest(bytes(row.hash), digested):
            return None
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            self._known.pop(digested, None)
            return None
        until = now + self.fresh_ms
        if row.expires_at is not None:
            until = min(until, row.expires_at)
        principal = Principal(row.app_id, row.id, row.read_only)
        previous = self._known.pop(digested, None)
        known = _Known(principal, until, previous.touched if previous else row.last_used_at or 0)
        # A key that was revoked while it was being read must not be remembered.
        if forgotten == self._forgotten:
            self._known[digested] = known
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return known

    def forget(self, app_id: str, key_id: str | None = None) -> None:
        """Stop believing a key, or all keys of an app, at once: after revoking them."""
        self.drop(app_id, key_id)
        for watcher in self.watchers:
            watcher(app_id)

    def drop(self, app_id: str, key_id: str | None = None) -> None:
        """Ask the database about a key, or all keys of an app, when they are used again."""
        self._forgotten += 1
        for digested, known in list(self._known.items()):
            principal = known.principal
            if principal.app_id == app_id and key_id in (None, principal.key_id):
                del self._known[digested]

    async def write_last_used(self) -> None:
        """Write when keys were last used; called now and then, and at the end.

        Where nothing can be stored now, the next call writes it.
        """
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await self._database.write(partial(repository.touch_keys, used=used))
        except InsulaError as error:
            self._used = {**used, **self._used}
            _log.warning("keys.last_use_not_written", reason=error.message)

    async def run(self) -> None:
        """Write last uses once a minute, until cancelled."""
        while True:
            await asyncio.sleep(TOUCH_MS / 1000)
            await self.write_last_used()
