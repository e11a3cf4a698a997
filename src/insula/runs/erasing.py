"""Erases what is due, beside live traffic: so much at once, and so often, that others hardly
notice.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.runs import retention
from insula.runs.retention import Erased
from insula.runs.services import RunServices
from insula.storage.database import Database
from insula.web import idempotency

_log = structlog.get_logger(__name__)

ERASE_SECONDS = 1.0
_LARGEST = 400
_SMALLEST = 20
_WORK = 0.0015
"""Seconds that one batch may take the writer while runs are live, the commit aside: to flush the
disk takes as long for twenty runs as for a hundred."""
_REST = 3
"""How many times as long is rested as a batch held the writer, the commit included: for as long
another commit that came in the midst of it waited."""
_WORK_ASIDE = 0.007
_REST_ASIDE = 1.5
"""The same where a batch holds nobody up, and costs the database time alone."""
_QUIET_SECONDS = 1.0
"""How long no run has to have been live before nobody is thought to wait: between two requests of
one caller, none is."""


class Took(NamedTuple):
    """Seconds that a batch took the writer: its work, and from its beginning to its commit."""

    work: float
    held: float


@dataclass(slots=True)
class Pace:
    """How many runs are erased at once, and how long is rested, learned from how long it took.

    That depends on the machine, on the database, and on what else both do just now.
    """

    size: int = 100
    work: float = _WORK
    rest: float = _REST

    def limit(self, *, busy: bool) -> int:
        """Return how many to erase now."""
        return self.size if busy else _LARGEST

    def learn(self, took: "Took", *, busy: bool) -> float:
        """Note what a batch took; return how many seconds to rest."""
        if not busy:
            return 0.0
        # Never on the word of one batch alone.
        fitting = self.size * min(2.0, max(0.25, self.work / max(took.work, 1e-6)))
        self.size = round(min(_LARGEST, max(_SMALLEST, (self.size + fitting) / 2)))
        return took.held * self.rest


def pace_of(database: Database) -> Pace:
    """Return the pace to begin with."""
    return Pace(work=_WORK_ASIDE, rest=_REST_ASIDE) if database.has_aside else Pace()


async def erase_for_ever(services: RunServices) -> None:
    """Once a second, erase what is due; beside the sweep, which must not wait for it."""
    pace = pace_of(services.database)
    while True:
        await asyncio.sleep(ERASE_SECONDS)
        try:
            await erase_due(services, pace)
            await services.database.write(idempotency.sweep)
        except (InsulaError, OSError) as error:
            _log.warning("erase.failed", reason=str(error))


async def erase_due(services: RunServices, pace: Pace | None = None) -> int:
    """Erase what is due, in batches; return how many runs.

    While runs are live, or were a moment ago, the batches are small and it rests after each.
    """
    pace = pace or pace_of(services.database)
    total = 0
    while True:
        busy = services.live.were_any(_QUIET_SECONDS)
        limit = pace.limit(busy=busy)
        erased, took = await _erase(services, limit)
        await services.files.remove(erased.files)
        total += erased.runs
        services.metrics.erased.inc(erased.runs)
        services.metrics.erased_lately.note(erased.runs)
        if erased.runs < limit:
            return total
        await asyncio.sleep(pace.learn(took, busy=busy))


async def _erase(services: RunServices, limit: int) -> tuple[Erased, Took]:
    """Erase a batch; return what went, and what it took. Its waiting for others is not its own."""
    began = done = 0.0

    def unit(connection: Connection) -> Erased:
        nonlocal began, done
        began = time.perf_counter()
        erased = retention.erase_due(connection, now_ms(), limit)
        done = time.perf_counter()
        return erased

    erased = await services.database.aside(unit)
    return erased, Took(done - began, time.perf_counter() - began)
