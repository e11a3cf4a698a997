"""Tasks: awaiting to the end what must not be left in the middle, and letting go what has ended."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(work: Awaitable[T]) -> T:
    """Await to the end even if this task is cancelled meanwhile; then let the cancel out."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
        except Exception:  # raised below, from the task's own result
            break
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


def cancels() -> int:
    """Return how often the present task was asked to end. It leaves no frame that keeps the task:
    with an error that goes through it, that would be a circle of all that the work was."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def forget_frames(task: "asyncio.Task[None]") -> None:
    """Let a cancelled task go, and all that its frames hold, at once: it keeps its error, which
    keeps the frames, which keep the task, and the collector of such circles halts everybody."""
    try:
        task.result()
    except asyncio.CancelledError as error:
        error.__traceback__ = None
