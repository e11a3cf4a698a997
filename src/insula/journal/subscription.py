"""Hearing of a run's events as they are stored, at the listener's own risk: one that is too slow is
closed and never holds up the run.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from insula.engine.events import Event

EVENTS_MAX = 10_000
BYTES_MAX = 8 * 1024 * 1024
_BATCH = 4
"""One batch counts for a quarter of each bound at most: however large it is, it alone puts nobody
behind. What it holds the run's own state mostly holds as well."""

Reason = Literal["ended", "slow", "fenced", "closed"]
Heard = tuple[int, list[Event]]


class SlowReader(Exception):
    """The reader fell behind by more than is kept for it; it may resume from what it has."""


class Subscription:
    """Iterates over ``(number of the last event, events)``, one for each batch once it is stored.

    ``reason`` says why it ended: the run has ``ended``, the reader was ``slow``, the run belongs to
    another process (``fenced``), or the subscription or the journal was ``closed``. One reader.
    """

    def __init__(self, run_id: str, closed: "Callable[[Subscription], None]") -> None:
        self.run_id = run_id
        self._closed = closed
        self.reason: Reason | None = None
        self._heard: deque[tuple[int, list[Event], int]] = deque()
        self._events = 0
        self._bytes = 0
        self._waiting: asyncio.Future[None] | None = None

    def put(self, seq: int, events: list[Event], size: int) -> None:
        """Add a stored batch of ``size`` bytes; over the bounds, close."""
        if self.reason is not None:
            return
        self._count(events, size, 1)
        if self._events > EVENTS_MAX or self._bytes > BYTES_MAX:
            # What is buffered goes too: the reader resumes from the last event it has seen.
            self._heard.clear()
            self.end("slow")
            return
        self._heard.append((seq, events, size))
        self._wake()

    def end(self, reason: Reason) -> None:
        """Let the reader have what is buffered, then stop it."""
        if self.reason is None:
            self.reason = reason
            self._closed(self)
            self._wake()

    def close(self) -> None:
        """Stop hearing; for the reader."""
        self._heard.clear()
        self.end("closed")

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Heard:
        while not self._heard:
            if self.reason is not None:
                raise StopAsyncIteration
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        seq, events, size = self._heard.popleft()
        self._count(events, size, -1)
        return seq, events

    def _count(self, events: list[Event], size: int, by: int) -> None:
        self._events += by * min(len(events), EVENTS_MAX // _BATCH)
        self._bytes += by * min(size, BYTES_MAX // _BATCH)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
