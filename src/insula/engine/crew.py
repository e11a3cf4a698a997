"""The tasks of one run: they stop together, and a cancel from outside is never lost.

``asyncio.TaskGroup`` cancels the task that waits for it when another one failed, and swallows a
cancel from outside that comes in the meantime. Here only the outside cancels who waits.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Crew:
    """Tasks that are all stopped when one fails or asks for it, or when who waits is cancelled.

    ``stopping``: nothing new may begin. ``cancelled``: a cancel came from outside. ``errors`` are
    what tasks raised.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.cancelled = False
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiter: asyncio.Future[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work as a task of the crew; once it is stopping, not at all."""
        if self.stopping:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def stop(self) -> None:
        """Cancel every task but the one that asks; once, for a second would disturb the first."""
        if self.stopping:
            return
        self.stopping = True
        asking = asyncio.current_task()
        for task in self._tasks:
            if task is not asking:
                task.cancel()

    def check(self) -> None:
        """Let nothing begin in a crew that is stopping, even where a cancel was swallowed.

        Raises:
            asyncio.CancelledError: the crew is stopping.
        """
        if self.stopping:
            raise asyncio.CancelledError

    async def finish(self) -> None:
        """Wait until every task has ended. A cancel meanwhile stops them, and is noted."""
        while self._tasks:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.cancelled = True
                self.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # One that is cancelled by itself was so by the event loop's end: the others follow.
            self.cancelled = self.cancelled or not self.stopping
            self.stop()
        elif (error := task.exception()) is not None:
            self.errors.append(error)
            self.stop()
        if not self._tasks and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
