"""Following the demo's runs: to their end, or to the moment at which everything in one is busy."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from insula.cli.client import Client
from insula.cli.demo.desk import Desk
from insula.cli.demo.narration import Narrator
from insula.cli.event_stream import ServerEvent
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.follow import Follower
from insula.cli.progress import RunProgress

BUSY = ("history", "duplicates", "archive", "draft", "orders")
"""The steps of *Triage* that one customer keeps busy for minutes."""

_BUSY_DEADLINE = 20.0
_PAGES = 80
_PIECES = 8


@dataclass(slots=True)
class Busy:
    """Tells when every one of the busy steps is in the midst of its work."""

    desk: Desk
    progress: RunProgress
    pieces: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        """Look again, because something has changed."""
        running = all(
            key in self.progress.steps and self.progress.steps[key].status == "RUNNING"
            for key in BUSY
        )
        outside = len(self.desk.waiting) == 2 and self.desk.computing and self.desk.pages >= _PAGES
        if running and outside and self.pieces >= _PIECES:
            self.reached.set()

    def told(self, event: ServerEvent) -> None:
        """Take an event of the run."""
        self.pieces += event.name == "chunk"
        self.look()


def follower(
    client: Client,
    runs_path: str,
    body: dict[str, Any],
    start_path: str | None = None,
) -> Follower:
    """Make what starts a run (or a replay, at its own path) and follows it."""
    return Follower(
        client,
        runs_path,
        tell=lambda event: None,
        body={**body, "stream": True},
        idempotency_key=str(uuid.uuid4()),
        start_path=start_path,
    )


async def to_completion(narrator: Narrator, following: Follower) -> dict[str, Any]:
    """Follow a run to its end, showing how far it is; return it.

    Raises:
        CommandFailed: it did not complete.
        KeyboardInterrupt: the person pressed Ctrl-C; the run was cancelled.
    """
    await _show(narrator, following, lambda event: None)
    run = following.progress.run
    if run.get("status") != "COMPLETED":
        why = run.get("error") or "no reason was given"
        raise CommandFailed(f"The run is {run.get('status')}: {why}", ExitCode.FAILED)
    return run


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A run that was cancelled: the answer, and how many seconds it took to come."""

    run: dict[str, Any]
    took: float
    pages: int
    after: int
    """How many requests the desk accepted in the watched time after the answer."""


async def cancel_when_busy(
    narrator: Narrator, following: Follower, desk: Desk, watched: float
) -> Cancelled:
    """Follow a run until all of it is busy, cancel it, and watch what still comes.

    Raises:
        CommandFailed: it was never busy, or the cancel was refused.
        KeyboardInterrupt: the person pressed Ctrl-C; the run was cancelled.
    """
    busy = Busy(desk, following.progress)
    desk.pages = desk.computing = 0
    desk.changed = busy.look
    showing = asyncio.create_task(_show(narrator, following, busy.told))
    reaching = asyncio.create_task(busy.reached.wait())
    try:
        await asyncio.wait(
            {showing, reaching}, timeout=_BUSY_DEADLINE, return_when=asyncio.FIRST_COMPLETED
        )
        if not reaching.done():
            if showing.done():
                await showing
            raise CommandFailed("The run did not get to where it is cancelled.", ExitCode.FAILED)
        cancelled = await _cancel(following, desk, watched)
        await showing
        return cancelled
    finally:
        desk.changed = lambda: None
        for task in (showing, reaching):
            task.cancel()
        await asyncio.wait({showing, reaching})


async def _cancel(following: Follower, desk: Desk, watched: float) -> Cancelled:
    path = f"{following.runs_path}/{following.progress.run_id}/cancel"
    begun = time.monotonic()
    run = await following.client.call("POST", path, query={"verbose": "all"})
    took = time.monotonic() - begun
    pages, before = desk.pages, await desk.barrier()
    await asyncio.sleep(watched)
    return Cancelled(run, took, pages, desk.accepted - before)


async def _show(
    narrator: Narrator, following: Follower, told: Callable[[ServerEvent], None]
) -> None:
    display = narrator.progress(following.progress)

    def tell(event: ServerEvent) -> None:
        display.told(following.progress.apply(event))
        told(event)

    following.tell = tell
    with display.showing():
        if await following.to_the_end(cancel_on_interrupt=True):
            raise KeyboardInterrupt
