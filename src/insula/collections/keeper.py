"""Goes on with records: when a run of theirs has ended here, and every second with those that
nobody else goes on with.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from insula.adapters.services.registry import ServiceRegistry
from insula.collections import record_repository, repository
from insula.collections.advance import advance
from insula.collections.cancel import stop
from insula.collections.landing import land
from insula.collections.remove import remove_collection
from insula.collections.service import RecordActions
from insula.collections.services import RecordServices
from insula.errors import InsulaError, TooMany
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)

SWEEP_SECONDS = 1.0
WORKERS = 4
ENDINGS = 32
"""How many cancels and deletions that others left are gone on with side by side."""
_AGAIN_SECONDS = 1.0


def open_records(services: RunServices) -> RecordServices:
    """Return what the verbs of records work with; let runs land in them, and steps call them."""
    records = RecordServices(services)
    assert isinstance(services.actions, ServiceRegistry)
    services.actions.add("COLLECTIONS", RecordActions(records))
    services.at_end.append(land)
    services.after_end.append(partial(_hear, records))
    return records


def _hear(records: RecordServices, row: RunRow) -> None:
    """A run has ended here."""
    if row.origin == "RECORD" and row.depth == 0 and row.identifier is not None:
        records.wake(row.identifier)


class Keeper:
    """One in each process that executes runs."""

    def __init__(self, services: RecordServices) -> None:
        self._services = services
        self._busy: set[str] = set()
        self._after = ""
        self._ending: set[str] = set()
        self._gate = asyncio.Semaphore(ENDINGS)

    async def run(self) -> None:
        """Go on with what comes; for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())
            group.create_task(self._sweep_for_ever(group))

    async def _work(self) -> None:
        services = self._services
        while True:
            record_id = next((one for one in services.waiting if one not in self._busy), None)
            if record_id is None or services.runs.draining:
                services.arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_SECONDS):
                        await services.arrived.wait()
                continue
            del services.waiting[record_id]
            self._busy.add(record_id)
            try:
                await self._advance(record_id)
            finally:
                self._busy.discard(record_id)
                if record_id in services.waiting:
                    services.arrived.set()

    async def _advance(self, record_id: str) -> None:
        try:
            await advance(self._services, record_id)
        except TooMany:
            _log.debug("record.waits", record_id=record_id)
        except InsulaError as error:  # the sweep comes back to it
            _log.warning("record.not_advanced", record_id=record_id, reason=error.message)
        except Exception:  # one record's defect must not hold up the others
            _log.exception("record.broke", record_id=record_id)

    async def _sweep_for_ever(self, group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._services.runs.draining:
                continue
            try:
                await self.sweep(group)
            except InsulaError as error:
                _log.warning("records.not_swept", reason=error.message)
            except Exception:  # it comes round again
                _log.exception("records.sweep_broke")

    async def sweep(self, group: asyncio.TaskGroup) -> None:
        """Find the records that nobody goes on with, and the collections whose deletion was left
        in the middle. What has to stop may take its time: it is waited for in ``group``."""
        database = self._services.runs.database
        query = partial(record_repository.needing, after=self._after)
        found = await database.read(query)
        self._after = found[-1][0] if len(found) == record_repository.SOME else ""
        for record_id, by, analysis in found:
            if by is None:
                self._services.wake(record_id)
            else:
                self._end(group, record_id, partial(stop, self._services, record_id, by, analysis))
        for app_id, collection_id in await database.read(repository.closing):
            removing = partial(remove_collection, self._services, app_id, collection_id)
            self._end(group, collection_id, removing)

    def _end(
        self, group: asyncio.TaskGroup, thing_id: str, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Go on with a cancel or a deletion whose caller's node died, unless it is gone on with."""
        if thing_id not in self._ending:
            self._ending.add(thing_id)
            group.create_task(self._ended(thing_id, work))

    async def _ended(self, thing_id: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            async with self._gate:
                await work()
        except InsulaError as error:  # the sweep comes back to it
            _log.warning("record.not_stopped", thing_id=thing_id, reason=error.message)
        except Exception:  # one record's defect must not hold up the others
            _log.exception("record.broke", thing_id=thing_id)
        finally:
            self._ending.discard(thing_id)
