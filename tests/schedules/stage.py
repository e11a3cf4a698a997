"""What the tests of schedules have in common: a clock that they set, and ways to look."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.runs.platform import Caller, Platform

from insula.kit.clock import now_ms
from insula.runs.services import RunServices
from insula.schedules import repository
from insula.schedules.timekeeper import Timekeeper

HOUR = 3_600_000
MINUTE = 60_000


class Clock:
    """The database's clock, as schedules read it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ahead = 0
        real = repository.clock
        patch.setattr(repository, "clock", lambda connection: real(connection) + self.ahead)

    def step(self, milliseconds: int) -> None:
        self.ahead += milliseconds

    @property
    def now(self) -> int:
        return now_ms() + self.ahead


def trigger(key: str, schedule: str, *to: str, **more: Any) -> dict[str, Any]:
    """Make the scheduler's step."""
    given = {"schedule": schedule, **more}
    service = {"type": "SCHEDULER", "action": "ON_SCHEDULE", "input": given}
    return {"type": "service", "key": key, "service": service, "destinations": list(to)}


async def look(services: RunServices, keeper: Timekeeper | None = None) -> float:
    """Let a timekeeper look, and what it fires end, until nothing is left that it can do now;
    return in how many seconds it would look again."""
    keeper = keeper or Timekeeper(services)
    while True:
        keeper._changed.clear()
        async with asyncio.TaskGroup() as group:
            seconds = await keeper.look(group)
        if not keeper._changed.is_set():  # nothing was fired
            return seconds


async def runs_of(platform: Platform) -> list[Any]:
    """Return the rows of all runs, in the order of their making."""
    return await platform.rows("SELECT * FROM runs ORDER BY id")


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something asynchronous holds."""
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110  # of what the database says
            await asyncio.sleep(0.002)


async def ended(platform: Platform, caller: Caller, number: int) -> list[Any]:
    """Wait until so many runs of an app have ended; return them, oldest first."""

    async def there() -> bool:
        sql = "SELECT 1 FROM runs WHERE ended_at IS NOT NULL AND app_id = :app_id"
        rows = await platform.rows(sql, app_id=caller.id)
        return len(rows) >= number

    await until(there)
    found = await caller.ok("GET", "/runs", params={"take": 100})
    assert len(found) == number
    return list(reversed(found))
