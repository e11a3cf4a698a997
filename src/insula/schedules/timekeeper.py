"""Waits for schedules to be due, and deals with them: one in each process that executes runs."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from insula.errors import InsulaError, TooMany
from insula.runs.services import RunServices
from insula.schedules import repository
from insula.schedules.fire import fire
from insula.schedules.repository import Schedule

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 30.0
"""How long at most nobody looks: another process may have made a schedule and died, and clocks may
be set."""
_RETRY_SECONDS = 1.0
_DUE_AT_ONCE = 100
_FIRED_AT_ONCE = 16
_START = (-1, "")


@dataclass(slots=True)
class Timekeeper:
    """Fires what is due by the database's clock."""

    services: RunServices
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Look again: schedules were changed."""
        self._changed.set()

    async def run(self) -> None:
        """Fire what is due, then wait until the next one is; for ever."""
        while True:
            self._changed.clear()
            seconds = _RETRY_SECONDS
            try:
                seconds = await self.look()
            except InsulaError as error:
                _log.warning("schedules.not_read", reason=error.message)
            except Exception:  # it comes round again; a server without clock would be worse
                _log.exception("schedules.broke")
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def look(self) -> float:
        """Fire what is due; return in how many seconds to look again."""
        if self.services.draining:
            return _RETRY_SECONDS
        place, late = _START, False
        while True:
            query = partial(repository.due_after, place=place, limit=_DUE_AT_ONCE)
            found = await self.services.database.read(query)
            late = await self._fire_all(found.due, found.now) or late
            if len(found.due) < _DUE_AT_ONCE:
                break
            last = found.due[-1]
            place = (last.next_at or 0, last.id)
        if late:
            return _RETRY_SECONDS
        if place != _START or found.due:  # what has fired is due again by now, or later
            query = partial(repository.due_after, place=_START, limit=1)
            found = await self.services.database.read(query)
            if found.due:
                return _RETRY_SECONDS
        if found.next_at is None:
            return LOOK_SECONDS
        return min(LOOK_SECONDS, max(0.0, (found.next_at - found.now) / 1000))

    async def _fire_all(self, due: Sequence[Schedule], now: int) -> bool:
        """Fire what is due; say whether some of it had to stay so."""
        gate = asyncio.Semaphore(_FIRED_AT_ONCE)

        async def one(schedule: Schedule) -> bool:
            async with gate:
                try:
                    return await self._exhaust(schedule, now)
                except TooMany:
                    _log.debug("schedule.waits", schedule_id=schedule.id)
                except InsulaError as error:
                    _log.warning("schedule.late", schedule_id=schedule.id, reason=error.message)
                except Exception:  # one schedule's defect must not hold up the others
                    _log.exception("schedule.broke", schedule_id=schedule.id)
                return True

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(schedule)) for schedule in due]
        return any(task.result() for task in tasks)

    async def _exhaust(self, schedule: Schedule, now: int) -> bool:
        """Fire a schedule as often as it is due."""
        current: Schedule | None = schedule
        while current is not None and await fire(self.services, current, now):
            again = partial(repository.find, app_id=schedule.app_id, schedule_id=schedule.id)
            current = await self.services.database.read(again)
            if current is None or current.next_at is None or current.next_at > now:
                break
        return False
