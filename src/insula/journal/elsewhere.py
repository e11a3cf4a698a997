"""Following runs that another process executes: what is stored is read, and messages say when."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from insula.errors import Unavailable
from insula.journal.read import Newer, load_after
from insula.journal.subscription import Heard
from insula.storage.database import Database

LOOKED_EVERY = 2.0
"""Seconds after which it is looked again without a message: one may have been lost."""
_RETRIED = 0.5
_READS_TOGETHER = 2
"""However many follow, so few of their reads are under way: whatever else is to be read comes in
between, and followers later."""


class Wakes(Protocol):
    """What is needed of the messages between nodes."""

    def publish(self, subject: str, body: bytes = b"") -> None:
        """Tell whoever listens, this node too; never waits."""

    async def listen(self, subject: str, heard: Callable[[bytes], None]) -> Callable[[], None]:
        """Call ``heard`` with what is published from now on; the returned function ends it."""

    def on_return(self, back: Callable[[], None]) -> None:
        """Have ``back`` called when messages come through again that did not."""


@dataclass(eq=False, slots=True)
class _Read:
    """One read for all who ask for the same before it begins."""

    task: "asyncio.Task[Newer]"
    followers: int = 0


class Elsewhere:
    """Tells other nodes of what is stored here, and follows what they store."""

    def __init__(self, database: Database, wakes: Wakes) -> None:
        self._database = database
        self._wakes = wakes
        self._woken: dict[str, list[asyncio.Event]] = {}
        self._reads: dict[tuple[str, int], _Read] = {}
        """Those that have not begun."""
        self._gate = asyncio.Semaphore(_READS_TOGETHER)
        self._closed = False
        wakes.on_return(self._wake_all)

    def tell(self, run_id: str) -> None:
        """Say, here and to the others, that something of a run was stored."""
        self._wakes.publish(f"run.{run_id}")
        self._wake(run_id)

    async def follow(self, run_id: str, after: int) -> AsyncGenerator[Heard, None]:
        """Yield what is stored after event ``after``, and then what is stored from then on.

        It reads only what it has not seen, and as fast as its reader takes it: a slow one is never
        let go, it reads more at a time.
        """
        # It listens before it reads: what is stored in between is told.
        async with self._woken_by(run_id) as woken:
            while not self._closed:
                woken.clear()
                try:
                    stored = await self._read(run_id, after)
                except Unavailable:
                    await asyncio.sleep(_RETRIED)
                    continue
                if stored.events:
                    after = stored.seq
                    yield after, stored.events
                if stored.ended:
                    return
                if not stored.more:
                    await _wait(woken)

    async def wait(self, run_id: str, seconds: float) -> None:
        """Wait until something of a run is stored, anywhere, and no longer than so many seconds."""
        async with self._woken_by(run_id) as woken:
            await _wait(woken, seconds)

    def close(self) -> None:
        """Let all followers go."""
        self._closed = True
        self._wake_all()

    async def _read(self, run_id: str, after: int) -> Newer:
        key = (run_id, after)
        read = self._reads.get(key)
        if read is None:
            task = asyncio.create_task(self._read_once(run_id, after))
            read = self._reads[key] = _Read(task)
        read.followers += 1
        try:
            return await asyncio.shield(read.task)
        finally:
            read.followers -= 1
            if not read.followers:  # for the last one who leaves it is not worth going on
                read.task.cancel()
                if self._reads.get(key) is read:
                    del self._reads[key]

    async def _read_once(self, run_id: str, after: int) -> Newer:
        async with self._gate:
            # Whoever asks from now on may want more than this is going to see.
            del self._reads[run_id, after]
            return await self._database.read(partial(load_after, run_id=run_id, after=after))

    @asynccontextmanager
    async def _woken_by(self, run_id: str) -> AsyncIterator[asyncio.Event]:
        """Give what is set whenever something of a run is stored, here or elsewhere."""
        woken = asyncio.Event()
        self._woken.setdefault(run_id, []).append(woken)
        try:
            end = await self._wakes.listen(f"run.{run_id}", partial(_set, woken))
            try:
                yield woken
            finally:
                end()
        finally:
            self._forget(run_id, woken)

    def _wake(self, run_id: str) -> None:
        for woken in self._woken.get(run_id, ()):
            woken.set()

    def _wake_all(self) -> None:
        for run_id in self._woken:
            self._wake(run_id)

    def _forget(self, run_id: str, woken: asyncio.Event) -> None:
        left = [other for other in self._woken.get(run_id, ()) if other is not woken]
        if left:
            self._woken[run_id] = left
        else:
            self._woken.pop(run_id, None)


def _set(woken: asyncio.Event, _: bytes) -> None:
    woken.set()


async def _wait(woken: asyncio.Event, seconds: float = LOOKED_EVERY) -> None:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
