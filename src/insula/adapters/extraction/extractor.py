"""Reads documents, each in a process of its own that is killed when its time is over."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from insula.adapters.extraction.messages import (
    FRAME_MAX,
    HEADER,
    Done,
    Failed,
    Kind,
    Message,
    Order,
    decode,
    frame,
)

_log = structlog.get_logger(__name__)


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
    """Starts readers, ``together`` of them at once; further documents wait."""

    def __init__(self, limits: ExtractionLimits, together: int = 2) -> None:
        self.limits = limits
        self._places = asyncio.Semaphore(together)
        self._warned = False

    @asynccontextmanager
    async def read(
        self, order: Order, document: BinaryIO
    ) -> AsyncIterator[AsyncGenerator[Message, None]]:
        """Give what is found, as it is found. When the block is left the process is dead.

        Raises:
            ExtractionFailed: while it is read: the document cannot be read, or took too much.
        """
        async with self._places:
            process = await _start(document)
            messages = self._messages(process, order)
            try:
                yield messages
            finally:
                await messages.aclose()
                await _end(process)

    async def _messages(
        self, process: asyncio.subprocess.Process, order: Order
    ) -> AsyncGenerator[Message, None]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.seconds
        assert process.stdin is not None
        try:
            process.stdin.write(frame(Kind.ORDER, order))
            while True:
                async with asyncio.timeout_at(deadline):
                    message = await _receive(process)
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
            raise ExtractionFailed(await self._post_mortem(process)) from None
        except ValueError:
            raise ExtractionFailed("The document made its reader misbehave; it was ended") from None

    async def _post_mortem(self, process: asyncio.subprocess.Process) -> str:
        code = await process.wait()
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


async def _start(document: BinaryIO) -> asyncio.subprocess.Process:
    held = os.dup(document.fileno())
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "insula.adapters.extraction.worker"),
            *(str(os.getpid()), str(held)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(held,),
            env={},
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(held)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it and see it dead, whoever cancels: nothing can refuse SIGKILL."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    waiting = asyncio.ensure_future(process.wait())
    cancelled = False
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled = True
    if process.stdin is not None:
        process.stdin.close()
    if cancelled:
        raise asyncio.CancelledError


async def _receive(process: asyncio.subprocess.Process) -> Message:
    assert process.stdout is not None
    length, kind = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
    if length > FRAME_MAX:
        raise ValueError("a frame that is too long")
    return decode(kind, await process.stdout.readexactly(length))


def _words(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
