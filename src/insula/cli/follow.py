"""Following a run over its stream to its end: taken up when it breaks, cancelled on Ctrl-C."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from insula.cli.client import Client, unreachable
from insula.cli.event_stream import ServerEvent
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.output import say
from insula.cli.progress import RunProgress

_TRIES = 6
_CANCEL_DEADLINE = 15.0

Tell = Callable[[ServerEvent], None]


async def growing_pause(tries: int) -> None:
    """Wait a little longer with each try."""
    await asyncio.sleep(min(0.1 * 2**tries, 3.0))


@dataclass(slots=True)
class Follower:
    """Follows one run below ``runs_path``: a new one made of ``body``, or that with ``run_id``."""

    client: Client
    runs_path: str
    tell: Tell
    body: dict[str, Any] | None = None
    idempotency_key: str | None = None
    run_id: str | None = None
    start_path: str | None = None
    progress: RunProgress = field(default_factory=RunProgress)

    async def to_the_end(self, cancel_on_interrupt: bool) -> bool:
        """Read until the final status; return whether the person interrupted.

        Raises:
            CommandFailed: the server refused, or stayed away.
            KeyboardInterrupt: interrupted where that does not cancel, or twice.
        """
        with _interrupts() as interrupts:
            reading = asyncio.create_task(self._read())
            try:
                if await _first(reading, interrupts):
                    await reading
                    return False
                if not cancel_on_interrupt or self._known_id() is None:
                    self._say_how_to_go_on()
                    raise KeyboardInterrupt
                await self._cancel(reading, interrupts)
                return True
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    def _known_id(self) -> str | None:
        return self.progress.run_id or self.run_id

    async def _cancel(
        self, reading: "asyncio.Task[None]", interrupts: "asyncio.Queue[None]"
    ) -> None:
        say("Cancelling. Press Ctrl-C again to leave the run alone.")
        asking = asyncio.create_task(self._ask_to_cancel())
        try:
            async with asyncio.timeout(_CANCEL_DEADLINE):
                if not await _first(asking, interrupts):
                    self._say_how_to_go_on()
                    raise KeyboardInterrupt
                await asking
                await reading
        except TimeoutError as error:
            raise CommandFailed("The run has not stopped yet.", ExitCode.INTERRUPTED) from error
        finally:
            asking.cancel()
            await asyncio.wait({asking})

    async def _ask_to_cancel(self) -> None:
        await self.client.call("POST", f"{self.runs_path}/{self._known_id()}/cancel")

    def _say_how_to_go_on(self) -> None:
        run_id = self._known_id()
        if run_id is None:
            say("If the run was started, `insula runs list` shows it.")
        elif not self.progress.has_ended():
            workflow_id = self.runs_path.split("/")[-2]
            more = " --discover" if "/discover/" in self.runs_path else ""
            say(f"The run goes on. To follow it: insula runs watch {workflow_id} {run_id}{more}")
            say(f"To stop it: insula runs cancel {workflow_id} {run_id}{more}")

    async def _read(self) -> None:
        tries = 0
        while not self.progress.has_ended():
            before = self.progress.last_id
            try:
                await self._read_once()
            except httpx2.TransportError as error:
                failure = unreachable(self.client.url, error)
            except CommandFailed as error:
                if error.code != ExitCode.UNREACHABLE or self._known_id() is None:
                    raise
                failure = error
            else:
                failure = CommandFailed("The stream ended too early.", ExitCode.UNREACHABLE)
            if self.progress.has_ended():
                return
            tries = 1 if self.progress.last_id != before else tries + 1
            if tries >= _TRIES:
                self._say_how_to_go_on()
                raise failure
            await growing_pause(tries)

    async def _read_once(self) -> None:
        async with self._open() as events:
            async for event in events:
                self.tell(event)
        run_id = self._known_id()
        if not self.progress.has_ended() and run_id is not None:
            # What was missed at the very end of a stream stands in the run itself.
            run = await self.client.call("GET", f"{self.runs_path}/{run_id}")
            if run.get("status") not in ("PENDING", "RUNNING"):
                self.tell(ServerEvent("run", run))

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        run_id = self._known_id()
        if run_id is None:
            path, method, body = self.start_path or self.runs_path, "POST", self.body
            headers = {"idempotency-key": self.idempotency_key} if self.idempotency_key else {}
        else:
            path, method, body = f"{self.runs_path}/{run_id}/stream", "GET", None
            last = self.progress.last_id
            headers = {"last-event-id": last} if last is not None else {}
        async with self.client.events(method, path, body, headers) as events:
            yield events


async def _first(task: "asyncio.Task[None]", interrupts: "asyncio.Queue[None]") -> bool:
    """Wait for the task or an interrupt; say whether it was the task."""
    interrupt = asyncio.create_task(interrupts.get())
    try:
        await asyncio.wait({task, interrupt}, return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        interrupt.cancel()
        await asyncio.wait({interrupt})


@contextmanager
def _interrupts() -> Iterator["asyncio.Queue[None]"]:
    """Catch Ctrl-C as entries of a queue for as long as the block lasts."""
    interrupts: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    previous = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, interrupts.put_nowait, None)
    try:
        yield interrupts
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, previous)
