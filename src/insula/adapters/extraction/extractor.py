"""Reads documents, each in a process of its own that is killed when its time is over."""

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, Self

import structlog

from insula.adapters.extraction.forker import Forker, Reader
from insula.adapters.extraction.messages import (
    DocumentKind,
    Done,
    Failed,
    Kind,
    Message,
    Order,
    frame,
)
from insula.errors import Unavailable

_log = structlog.get_logger(__name__)

_KEPT_SECONDS = 60.0
"""How long the zygote stays after the last document: it holds the libraries, which are large."""


class ExtractionFailed(Exception):
    """The document cannot be read; the message is for people."""


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """Bounds on one document: seconds, bytes, and pages."""

    seconds: float = 300.0
    memory: int = 512 * 1024 * 1024
    output: int = 16 * 1024 * 1024
    pages: int = 1_000


class Extractor:
    """Has documents read, ``together`` of them at once; further ones wait. To be closed."""

    def __init__(self, limits: ExtractionLimits, together: int = 2) -> None:
        self.limits = limits
        self._places = asyncio.Semaphore(together)
        self._at_work = 0
        self._forker: Forker | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._warned = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the zygote, and with it whatever is still read."""
        if self._rest is not None:
            self._rest.cancel()
        if self._forker is not None:
            await self._forker.close()

    @asynccontextmanager
    async def read(
        self, order: Order, document: AbstractAsyncContextManager[BinaryIO]
    ) -> AsyncIterator[AsyncGenerator[Message, None]]:
        """Give what is found, as it is found. When the block is left the reader is dead.

        The document is had only once there is a place for it, and is let go with the place: those
        that wait cost nothing.

        Raises:
            ExtractionFailed: while it is read: the document cannot be read, or took too much.
            Unavailable: no reader can be had; that is not the document's fault.
        """
        async with self._places:
            self._at_work += 1
            try:
                async with document as opened:
                    reader = await self._reader(order.kind, opened)
                    messages = self._messages(reader, order)
                    try:
                        yield messages
                    finally:
                        await messages.aclose()
                        await reader.end()
            finally:
                self._at_work -= 1
                self._rest_later()

    async def _reader(self, kind: DocumentKind, document: BinaryIO) -> Reader:
        if self._rest is not None:
            self._rest.cancel()
        if self._forker is None or self._forker.stopped:
            self._forker = Forker()
        return await self._forker.reader(kind, document)

    def _rest_later(self) -> None:
        if self._at_work == 0 and self._forker is not None:
            if self._rest is not None:  # of a document that could not be opened
                self._rest.cancel()
            loop = asyncio.get_running_loop()
            self._rest = loop.call_later(_KEPT_SECONDS, self._forker.stop)

    async def _messages(self, reader: Reader, order: Order) -> AsyncGenerator[Message, None]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.seconds
        try:
            reader.tell(frame(Kind.ORDER, order))
            while True:
                async with asyncio.timeout_at(deadline):
                    # What is there already is taken without a wait: then others had to, and no
                    # deadline came.
                    await asyncio.sleep(0)
                    message = await reader.receive()
                if isinstance(message, Failed):
                    raise ExtractionFailed(message.message)
                if isinstance(message, Done):
                    self._warn(message.missing)
                yield message
                if isinstance(message, Done):
                    return
        except TimeoutError:
            seconds = f"{self.limits.seconds:g} s"
            raise ExtractionFailed(
                f"The document took more than {seconds} (INSULA_EXTRACT_SECONDS)"
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ExtractionFailed(self._post_mortem(await reader.exit_code())) from None
        except ValueError:
            raise ExtractionFailed("The document made its reader misbehave; it was ended") from None

    def _post_mortem(self, code: int | None) -> str:
        if code is None:
            raise Unavailable("The process that reads documents was ended.", retry_after=1)
        if code == -signal.SIGXCPU or code == -signal.SIGKILL:
            return (
                f"The document took more than {self.limits.seconds:g} s of processor time "
                "(INSULA_EXTRACT_SECONDS)"
            )
        memory = self.limits.memory // 2**20
        return (
            f"The document is damaged, or needs more than {memory} MiB (INSULA_EXTRACT_MEMORY): "
            f"its reader broke off ({_words(code)})"
        )

    def _warn(self, missing: list[str]) -> None:
        if missing and not self._warned:
            self._warned = True
            _log.warning("extraction.walls_missing", walls=missing)


def _words(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
