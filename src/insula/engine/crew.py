"""The tasks of one run: they stop together, and a cancel from outside is never lost.

``asyncio.TaskGroup`` cancels the task that waits for it when another one failed, and swallows a
cancel from outside that comes in the meantime. Here only the outside cancels who waits.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from insula.kit.tasks import forget_frames


class Crew:
    """Tasks that are all stopped when one fails or asks for it, or when the owner is cancelled.

    The owner is the task that makes the crew. ``errors`` are what tasks raised; ``interrupted`` is
    called when a cancel comes from outside, before the tasks hear of it.
    """

    def __init__(self, interrupted: Callable[[], None] | None = None) -> None:
        self._interrupted = interrupted
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._cancelled = False
        self._owner = asyncio.current_task()
        self._cancels = 0 if self._owner is None else self._owner.cancelling()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether a cancel came from outside, even if it has not reached the owner yet."""
        owner = self._owner
        return self._cancelled or (owner is not None and owner.cancelling() > self._cancels)

    @property
    def stopping(self) -> bool:
        """Whether nothing new may begin."""
        return self._stopped or self.cancelled

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
        if self._stopped:
            return
        self._stopped = True
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
                self._cancelled = True
                if self._interrupted is not None:
                    self._interrupted()
                self.stop()
        self._interrupted = None  # whoever made the crew is not kept by it beyond its work
        if self.cancelled and not self._cancelled:
            # It has been asked for and not come out: here it does, not in what the owner does next.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            forget_frames(task)
            # One that is cancelled by itself was so by the event loop's end: the others follow.
            self._cancelled = self._cancelled or not self._stopped
            self.stop()
        elif (error := task.exception()) is not None:
            self.errors.append(error)
            self.stop()
        if not self._tasks and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
