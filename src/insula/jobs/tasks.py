"""Short tasks with an owner, and cancels that a library must not swallow."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from insula.kit.tasks import cancels

log = structlog.get_logger("insula.jobs")


class Tasks:
    """At most ``maximum`` tasks at once, none of which outlives ``close``.

    Not a task group: what one of them raises must not end the others, and their owner is an object
    that is opened and closed, not a block of code.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run it as a task; ``False``, and it never begins, where there is no room for it."""
        if self._closed or len(self._running) >= self._maximum:
            work.close()
            return False
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return True

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task.failed", exc_info=error)

    async def close(self) -> None:
        """Cancel them all and wait until they have ended; nothing starts afterwards."""
        self._closed = True
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def check_cancelled(since: int = 0) -> None:
    """Let a cancel come out that was swallowed since there were so many.

    ``asyncio.wait_for`` of Python 3.11 forgets one that comes in the moment in which what it waits
    for is done, and the libraries wait with it.

    Raises:
        asyncio.CancelledError: the present task was asked to end.
    """
    if cancels() > since:
        raise asyncio.CancelledError
