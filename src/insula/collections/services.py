"""What the verbs of this folder work with, handed in by the composition root."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection

from insula.collections.rows import RecordRow
from insula.runs.services import RunServices

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
    drawing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """One report at a time: drawing is work for the processor alone."""

    def wake(self, record_id: str) -> None:
        """Let the keeper go on with a record."""
        self.waiting[record_id] = None
        self.arrived.set()

    def told(self, connection: Connection, event: Event, record: RecordRow) -> None:
        """Tell of an event, in its unit."""
        for tell in self.tell:
            tell(connection, event, record)
