"""Erases what is due, beside live traffic: so much at once, and so often, that others hardly
notice.
"""

import asyncio
import time
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.runs import retention
from insula.runs.retention import Erased
from insula.runs.services import RunServices
from insula.web import idempotency

_log = structlog.get_logger(__name__)

ERASE_SECONDS = 1.0
_LARGEST = 400
_SMALLEST = 5
_HELD = 0.002
"""Seconds for which one batch may hold the writer while runs are live: what another commit that
comes in the midst of it waits for."""
_REST = 4
"""How many times as long is rested afterwards."""


@dataclass(slots=True)
class Pace:
    """How many runs are erased at once, learned from how long that took.

    A batch's cost depends on the machine, on the database, and on what else both do just now; the
    longer it takes, the smaller the next, and the longer the rest before it.
    """

    size: int = 100

    def limit(self, *, busy: bool) -> int:
        """Return how many to erase now."""
        return self.size if busy else _LARGEST

    def learn(self, erased: int, held: float, *, busy: bool) -> float:
        """Note for how many seconds the writer was held; return how many to rest."""
        if not busy:
            return 0.0
        if erased:
            # From one batch to the next no more than double, and never on the word of one alone.
            fitting = self.size * min(2.0, max(0.25, _HELD / max(held, 1e-6)))
            self.size = round(min(_LARGEST, max(_SMALLEST, (self.size + fitting) / 2)))
        return held * _REST


async def erase_for_ever(services: RunServices) -> None:
    """Once a second, erase what is due; beside the sweep, which must not wait for it."""
    pace = Pace()
    while True:
        await asyncio.sleep(ERASE_SECONDS)
        try:
            await erase_due(services, pace)
            await services.database.write(idempotency.sweep)
        except (InsulaError, OSError) as error:
            _log.warning("erase.failed", reason=str(error))


async def erase_due(services: RunServices, pace: Pace | None = None) -> int:
    """Erase what is due, in batches; return how many runs.

    While runs are live the batches are small and it rests after each of them.
    """
    pace = pace or Pace()
    total = 0
    while True:
        busy = len(services.live) > 0
        limit = pace.limit(busy=busy)
        erased, held = await _erase(services, limit)
        await services.files.remove(erased.files)
        total += erased.runs
        services.metrics.erased.inc(erased.runs)
        services.metrics.erased_lately.note(erased.runs)
        if erased.runs < limit:
            return total
        await asyncio.sleep(pace.learn(erased.runs, held, busy=busy))


async def _erase(services: RunServices, limit: int) -> tuple[Erased, float]:
    """Erase a batch; return what went, and the seconds from its beginning to its commit.

    What it waited for before it began is not its own.
    """
    began: list[float] = []

    def unit(connection: Connection) -> Erased:
        began.append(time.perf_counter())
        return retention.erase_due(connection, now_ms(), limit)

    erased = await services.database.submit(unit, fenced=True)
    return erased, time.perf_counter() - began[-1]
