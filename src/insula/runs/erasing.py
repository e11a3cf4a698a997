"""Erases what is due, beside live traffic: so much at once, and so often, that others hardly
notice.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy import Connection

from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.runs.services import RunServices
from insula.storage.database import Database
from insula.web import idempotency

T = TypeVar("T")
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
    """How much is erased at once, and how long is rested, learned from how long it took.

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
    return Pace(work=_WORK_ASIDE, rest=_REST_ASIDE) if database.background_is_free else Pace()


@dataclass(slots=True)
class Traffic:
    """Whether anybody may wait for what erasing holds up: at this node, or at another one."""

    services: RunServices
    _looked_at: float = float("-inf")
    _elsewhere: bool = False

    async def is_busy(self) -> bool:
        """Say whether any run is live or was a moment ago; of others', as of a second ago."""
        services, now = self.services, time.monotonic()
        if services.live.were_any(_QUIET_SECONDS):
            return True
        if services.nodes < 2:
            return False
        if now - self._looked_at >= _QUIET_SECONDS:
            since = now_ms() - int(_QUIET_SECONDS * 1000)
            query = partial(repository.any_since, since=since)
            self._elsewhere = await services.database.read(query)
            self._looked_at = now
        return self._elsewhere


async def erase_for_ever(services: RunServices) -> None:
    """Once a second, erase what is due; beside the sweep, which must not wait for it."""
    traffic = Traffic(services)
    async with asyncio.TaskGroup() as group:
        for what in (erase_due, remove_old_keys):
            group.create_task(_repeat(partial(what, services, pace_of(services.database), traffic)))


async def _repeat(work: Callable[[], Awaitable[int]]) -> None:
    while True:
        await asyncio.sleep(ERASE_SECONDS)
        try:
            await work()
        except (InsulaError, OSError) as error:
            _log.warning("erase.failed", reason=str(error))
        except Exception:  # it comes round again; what runs here must not end with it
            _log.exception("erase.broke")


async def erase_due(
    services: RunServices, pace: Pace | None = None, traffic: Traffic | None = None
) -> int:
    """Erase what is due, in batches; return how many runs.

    While runs are live, or were a moment ago, the batches are small and it rests after each.
    """

    async def batch(limit: int) -> tuple[int, Took]:
        unit = partial(retention.erase_due, now=now_ms(), limit=limit)
        erased, took = await _timed(services.database, unit)
        await services.files.remove(erased.files)
        services.metrics.note_erased(erased.runs)
        return erased.runs, took

    return await _in_batches(
        batch, pace or pace_of(services.database), traffic or Traffic(services)
    )


async def remove_old_keys(
    services: RunServices, pace: Pace | None = None, traffic: Traffic | None = None
) -> int:
    """Remove records of idempotency keys that hold no more, as ``erase_due``; return how many."""
    database = services.database
    if not await database.read(idempotency.any_old):
        return 0

    async def batch(limit: int) -> tuple[int, Took]:
        return await _timed(database, partial(idempotency.sweep, limit=limit))

    return await _in_batches(batch, pace or pace_of(database), traffic or Traffic(services))


async def _in_batches(
    batch: Callable[[int], Awaitable[tuple[int, Took]]], pace: Pace, traffic: Traffic
) -> int:
    """Do batch after batch until one is not full; return how much all of them did."""
    total = 0
    while True:
        busy = await traffic.is_busy()
        limit = pace.limit(busy=busy)
        done, took = await batch(limit)
        total += done
        if done < limit:
            return total
        await asyncio.sleep(pace.learn(took, busy=busy))


async def _timed(database: Database, work: Callable[[Connection], T]) -> tuple[T, Took]:
    """Do it aside; return what came of it and what it took. Its waiting for others is not its
    own."""
    began = done = 0.0

    def unit(connection: Connection) -> T:
        nonlocal began, done
        began = time.perf_counter()
        result = work(connection)
        done = time.perf_counter()
        return result

    result = await database.background(unit)
    return result, Took(done - began, time.perf_counter() - began)
