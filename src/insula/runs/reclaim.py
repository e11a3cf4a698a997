"""What is taken back every now and then: files that nobody needs, rows too old even for lists, and
space on the disk.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog

from insula.errors import InsulaError
from insula.journal.lease import remove_lapsed
from insula.kit.clock import DAY_MS, now_ms
from insula.runs import retention
from insula.runs.services import RunServices
from insula.storage import counters

_log = structlog.get_logger(__name__)

RECLAIM_SECONDS = 600.0
_REMOVED_AT_ONCE = 200
_LOOKED_AT_ONCE = 2_000
_GATHERED_AT_ONCE = 20


async def reclaim_for_ever(services: RunServices, reclaim: Callable[[], Awaitable[None]]) -> None:
    """Every now and then: remove files that nobody needs, give space back to the disk."""
    rows = OldRows()
    while True:
        try:
            await services.files.sweep()
            await remove_old_rows(services, rows)
            await gather_counters(services)
            watch = services.journal.database_clock
            lapsed = partial(remove_lapsed, token=services.token, watch=watch)
            await services.database.write(lapsed)
            await reclaim()
        except (InsulaError, OSError) as error:
            _log.warning("reclaim.failed", reason=str(error))
        except Exception:  # it comes round again; what runs here must not end with it
            _log.exception("reclaim.broke")
        await asyncio.sleep(RECLAIM_SECONDS)


@dataclass(slots=True)
class OldRows:
    """How far a process has gone through the rows that are too old even for lists.

    It goes on from there, and through all of them again once a day: those that were kept may have
    been erased meanwhile.
    """

    begun: int = 0
    """When it last went from the first one on (Unix ms)."""
    after: str = ""


async def remove_old_rows(services: RunServices, place: OldRows | None = None) -> None:
    """Remove the rows of runs that were erased and are too old even for lists."""
    place, now = place or OldRows(), now_ms()
    if now - place.begun >= DAY_MS:
        place.begun, place.after = now, ""
    before = now - services.rows_days * DAY_MS
    more = True
    while more:
        look = partial(retention.find_old, before=before, after=place.after, limit=_LOOKED_AT_ONCE)
        old = await services.database.read(look)
        for start in range(0, len(old.erased), _REMOVED_AT_ONCE):
            some = old.erased[start : start + _REMOVED_AT_ONCE]
            await services.database.write(partial(retention.remove_rows, run_ids=some))
        more = old.last is not None
        place.after = old.last or place.after


async def gather_counters(services: RunServices) -> None:
    """Put each counter's slots together: every node that ever was has counted in one."""
    after: counters.Key | None = None
    while True:
        look = partial(counters.scattered, after=after, limit=_GATHERED_AT_ONCE)
        if not (found := await services.database.read(look)):
            return
        await services.database.write(partial(counters.gather, keys=found))
        after = found[-1]
