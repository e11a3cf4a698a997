"""Hints within one process: of a node alone, or of several nodes that share them."""

import asyncio

import structlog

from insula.jobs.jobs import Room, Take, check_word, is_word
from insula.jobs.queue import FairQueue

log = structlog.get_logger("insula.jobs")


class SharedHints:
    """What the nodes of one process share: a fair queue for each kind."""

    def __init__(self) -> None:
        self._queues: dict[str, FairQueue] = {}

    def queue(self, kind: str) -> FairQueue:
        """Return the queue of a kind."""
        if kind not in self._queues:
            self._queues[check_word("kind", kind)] = FairQueue()
        return self._queues[kind]


class MemoryJobs:
    """A node's hints over shared queues; its own where none are given."""

    def __init__(self, shared: SharedHints | None = None) -> None:
        self._shared = shared or SharedHints()
        self._connected = True
        self._lost = 0
        self._mended = asyncio.Event()
        self._mended.set()

    @property
    def connected(self) -> bool:
        """Whether it is neither cut off nor closed."""
        return self._connected

    @property
    def lost(self) -> int:
        """How many hints were dropped here since the start."""
        return self._lost

    def cut(self) -> None:
        """Be unreachable, as a node is whose broker is away."""
        self._connected = False
        self._mended.clear()

    def mend(self) -> None:
        """Be reachable again."""
        self._connected = True
        self._mended.set()

    async def offer(self, kind: str, owner: str, item: str) -> None:
        """Hint that an item waits; dropped where the queue is full or this node is cut off."""
        words = is_word(kind) and is_word(owner) and is_word(item)
        if not (words and self._connected and self._shared.queue(kind).offer(owner, item)):
            self._lost += 1
            log.debug("job.hint_lost", kind=kind[:50])

    async def work(self, kind: str, room: Room, take: Take) -> None:
        """Fetch hints of a kind while ``room()`` says so, owners in turn, for ever."""
        queue = self._shared.queue(kind)
        owners: list[str] = []

        def anyone(owner: str) -> bool:
            owners[:] = [owner]
            return True

        while True:
            await self._mended.wait()
            item = queue.take(anyone) if room() else None
            if item is None:
                await queue.arrived()
                continue
            try:
                await take(owners[0], item)
            except Exception:
                log.exception("job.take_failed", kind=kind, owner=owners[0], item=item)

    def wake(self, kind: str) -> None:
        """Say that there may be room again for hints of this kind."""
        self._shared.queue(kind).wake()

    async def close(self) -> None:
        """Drop what is offered from now on."""
        self._connected = False
