"""Waits for schedules to be due, and deals with them: one in each process that executes runs."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from insula.errors import InsulaError, TooMany
from insula.runs.services import RunServices
from insula.schedules import repository
from insula.schedules.fire import fire
from insula.schedules.repository import Found

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 30.0
"""How long at most nobody looks: another process may have made a schedule and died, and clocks may
be set."""
AT_ONCE = 256
"""Schedules that are fired at the same time, each in a task of its own."""
OF_ONE_APP = 8
"""Of these, how many an app may have."""
_RETRY_SECONDS = 1.0
_LOOKED_AT = 1_000
_START = (-1, "")


@dataclass(frozen=True, slots=True)
class _Hold:
    """What could not be done is not tried again ``until`` then, by the timekeeper's clock."""

    until: float
    seconds: float


@dataclass(slots=True)
class Timekeeper:
    """Fires what is due by the database's clock. Nothing waits for a schedule whose input takes
    long to come, and an app with many of them holds up itself alone."""

    services: RunServices
    clock: Callable[[], float] = time.monotonic
    """Seconds, by which holds last."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _firing: set[str] = field(default_factory=set)
    _apps: Counter[str] = field(default_factory=Counter)
    """How many schedules of each app are being fired."""
    _held: dict[str, _Hold] = field(default_factory=dict)
    """By the ids of schedules, and of apps of which too many runs wait."""

    def wake(self) -> None:
        """Look again: schedules were changed."""
        self._changed.set()

    async def run(self) -> None:
        """Fire what is due, then wait until the next one is; for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                seconds = _RETRY_SECONDS
                try:
                    seconds = await self.look(group)
                except InsulaError as error:
                    _log.warning("schedules.not_read", reason=error.message)
                except Exception:  # it comes round again; a server without clock would be worse
                    _log.exception("schedules.broke")
                try:
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def look(self, group: asyncio.TaskGroup) -> float:
        """Begin to fire what is due and has room; return in how many seconds to look again. The end
        of each wakes it, too."""
        if self.services.draining:
            return _RETRY_SECONDS
        self._drop_old_holds()
        place = _START
        while len(self._firing) < AT_ONCE:
            query = partial(repository.due_after, place=place, limit=_LOOKED_AT)
            found = await self.services.database.read(query)
            for schedule_id, app_id, _ in found.due:
                if self._may_fire(schedule_id, app_id):
                    self._firing.add(schedule_id)
                    self._apps[app_id] += 1
                    group.create_task(self._fire(schedule_id, app_id, found.now))
            if len(found.due) < _LOOKED_AT:
                return self._pause(found)
            schedule_id, _, next_at = found.due[-1]
            place = (next_at, schedule_id)
        return LOOK_SECONDS

    def _may_fire(self, schedule_id: str, app_id: str) -> bool:
        if schedule_id in self._firing or len(self._firing) >= AT_ONCE:
            return False
        if self._apps[app_id] >= OF_ONE_APP:
            return False
        now = self.clock()
        holds = (self._held.get(schedule_id), self._held.get(app_id))
        return all(hold is None or hold.until <= now for hold in holds)

    def _pause(self, found: Found) -> float:
        """Return the seconds until the next tick that is not due yet, or the end of a hold."""
        now = self.clock()
        pauses = [hold.until - now for hold in self._held.values() if hold.until > now]
        if found.next_at is not None:
            pauses.append(max(0.0, (found.next_at - found.now) / 1000))
        return min(LOOK_SECONDS, *pauses) if pauses else LOOK_SECONDS

    async def _fire(self, schedule_id: str, app_id: str, now: int) -> None:
        try:
            await self._exhaust(schedule_id, app_id, now)
            self._held.pop(schedule_id, None)
        except TooMany:
            _log.debug("schedule.waits", schedule_id=schedule_id)
            self._hold(app_id, _RETRY_SECONDS)
        except InsulaError as error:
            _log.warning("schedule.late", schedule_id=schedule_id, reason=error.message)
            self._hold(schedule_id, LOOK_SECONDS)
        except Exception:  # one schedule's defect must not hold up the others
            _log.exception("schedule.broke", schedule_id=schedule_id)
            self._hold(schedule_id, LOOK_SECONDS)
        finally:
            self._firing.discard(schedule_id)
            self._apps[app_id] -= 1
            if not self._apps[app_id]:
                del self._apps[app_id]
            self.wake()

    async def _exhaust(self, schedule_id: str, app_id: str, now: int) -> None:
        """Fire a schedule as often as it is due."""
        find = partial(repository.find, app_id=app_id, schedule_id=schedule_id)
        while (current := await self.services.database.read(find)) is not None:
            if current.next_at is None or current.next_at > now:
                return
            if not await fire(self.services, current, now):
                return

    def _hold(self, key: str, longest: float) -> None:
        """Let a second pass before it is tried again, and each time twice as many."""
        before = self._held.get(key)
        seconds = _RETRY_SECONDS if before is None else min(longest, 2 * before.seconds)
        self._held[key] = _Hold(self.clock() + seconds, seconds)

    def _drop_old_holds(self) -> None:
        """Forget what was not tried again: it is gone, or another process has taken its tick."""
        since = self.clock() - LOOK_SECONDS
        self._held = {key: hold for key, hold in self._held.items() if hold.until > since}
