"""SIGINT and SIGTERM, for commands that run until they are stopped."""

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType

from insula.cli.failures import CommandFailed, ExitCode

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The first signal stops, the second one hurries. Handled until the block is left, so that the
    second one finds somebody."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()
        self._hurry: Callable[[], None] | None = None

    def __enter__(self) -> "Signals":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._hurry is not None:
            for number in _NUMBERS:
                asyncio.get_running_loop().remove_signal_handler(number)

    def handle(self, hurry: Callable[[], None]) -> None:
        """Handle them from now on."""
        self._hurry = hurry
        for number in _NUMBERS:
            asyncio.get_running_loop().add_signal_handler(number, self._come)

    async def until_stopped(self, serving: "asyncio.Task[None]") -> None:
        """Wait for the first one.

        Raises:
            CommandFailed: what serves has ended by itself.
        """
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                raise CommandFailed("The server ended by itself.", ExitCode.UNREACHABLE)
        finally:
            stopping.cancel()

    def _come(self) -> None:
        if self._stop.is_set() and self._hurry is not None:
            self._hurry()
        self._stop.set()
