"""Places for what may be under way outside: a bound for all, and a share of it for each app."""

import asyncio
from dataclasses import dataclass

_SHARE = 2
"""An app holds at most one in so many of all places."""


@dataclass(slots=True)
class Claim:
    """Somebody's wish to go outside, and what it waits for, in words; empty while it goes on.

    Without an ``app_id`` it is the operator's own, and has no share but the whole.
    """

    app_id: str = ""
    waits_for: str = ""


class _Own:
    """One app's share, and how many hold or await a place of it."""

    def __init__(self, places: int) -> None:
        self.free = asyncio.Semaphore(places)
        self.users = 0


class Places:
    """Who waits for the share of its own app waits behind nobody else's requests."""

    def __init__(self, limit: int, what: str) -> None:
        self.share = max(1, limit // _SHARE)
        self._free = asyncio.Semaphore(limit)
        self._apps: dict[str, _Own] = {}
        self._words = f"{what} (an app has {self.share:,} at once, all together {limit:,})"

    async def enter(self, claim: Claim) -> None:
        """Wait for a place and hold it, until ``leave``."""
        claim.waits_for = self._words
        own = self._apps.setdefault(claim.app_id, _Own(self.share)) if claim.app_id else None
        if own is None:
            await self._free.acquire()
        else:
            await self._enter_own(own, claim.app_id)
        claim.waits_for = ""

    async def _enter_own(self, own: _Own, app_id: str) -> None:
        own.users += 1
        try:
            await own.free.acquire()
            try:
                await self._free.acquire()
            except BaseException:
                own.free.release()
                raise
        except BaseException:
            self._forget(own, app_id)
            raise

    def leave(self, app_id: str) -> None:
        """Give a place back."""
        self._free.release()
        if app_id:
            own = self._apps[app_id]
            own.free.release()
            self._forget(own, app_id)

    def _forget(self, own: _Own, app_id: str) -> None:
        own.users -= 1
        if not own.users:
            del self._apps[app_id]
