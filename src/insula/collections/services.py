"""What the verbs of this folder work with, handed in by the composition root."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from sqlalchemy import Connection

from insula.collections.record_repository import by_id
from insula.collections.rows import RecordRow
from insula.runs.services import RunServices

_LOOK_SECONDS = 1.0
"""How long at most nobody looks: the analysis may have ended on another node."""

Event = Literal["record.created", "record.running", "record.completed", "record.failed"]

Tell = Callable[[Connection, Event, RecordRow], None]
"""Called in the unit that makes an event true: what it stores is stored with it."""


@dataclass(slots=True)
class RecordServices:
    """Runs, who is told of events, and which records wait for somebody to go on with them."""

    runs: RunServices
    tell: list[Tell] = field(default_factory=list)
    waiting: dict[str, None] = field(default_factory=dict)
    """Ids of records in the order of their coming."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    resting: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)
    """Who waits here for the end of which record's analysis."""
    drawing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """One report at a time: drawing is work for the processor alone."""

    def wake(self, record_id: str) -> None:
        """Let the keeper go on with a record."""
        self.waiting[record_id] = None
        self.arrived.set()

    async def rested(self, record_id: str, analysis: int) -> None:
        """Wait until an analysis of a record has ended."""
        while True:
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.resting.setdefault(record_id, []).append(told)
            try:
                row = await self.runs.database.read(partial(by_id, record_id=record_id))
                if row is None or not row.is_live or row.analysis != analysis:
                    return
                await asyncio.wait([told], timeout=_LOOK_SECONDS)
            finally:
                told.cancel()
                waiting = self.resting[record_id]
                waiting.remove(told)
                if not waiting:
                    del self.resting[record_id]

    def rests(self, record_id: str) -> None:
        """Tell who waits here for a record; elsewhere they look for themselves."""
        for told in self.resting.get(record_id, ()):
            if not told.done():
                told.set_result(None)

    def told(self, connection: Connection, event: Event, record: RecordRow) -> None:
        """Tell of an event, in its unit."""
        for tell in self.tell:
            tell(connection, event, record)
