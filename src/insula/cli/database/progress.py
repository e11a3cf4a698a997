"""Work on a thread that says once a second how far it is, and that Ctrl-C undoes."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from insula.cli.output import say

T = TypeVar("T")
_EVERY = 1.0


class Stopped(Exception):
    """Nobody waits for the work any more: undo it."""


class Progress:
    """Hears of what is done, tells it now and then, and ends the work when it is stopped."""

    def __init__(self, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._next = clock() + _EVERY
        self._stopped = threading.Event()

    def __call__(self, what: str, done: int) -> None:
        """Hear that ``done`` of something are done."""
        if self._stopped.is_set():
            raise Stopped
        now = self._clock()
        if now >= self._next:
            self._next = now + _EVERY
            if not self._quiet:
                say(f"{what}: {done:,}")

    def stop(self) -> None:
        """End the work at the next thing it does; from any thread."""
        self._stopped.set()


async def on_a_thread(progress: Progress, work: Callable[[Progress], T]) -> T:
    """Do the work beside the loop; cancelled, it returns when the work has been undone."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, progress))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        progress.stop()
        await asyncio.gather(doing, return_exceptions=True)
        raise
