"""The server's side of the zygote of readers: starts it, asks it for readers, learns their end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from typing import BinaryIO

from insula.adapters.extraction.messages import FRAME_MAX, HEADER, DocumentKind, Message, decode
from insula.adapters.extraction.zygote import BORN, ENDED, STARTED
from insula.errors import Unavailable
from insula.kit.tasks import uninterrupted

_BORN_WITHIN = 60.0
"""Seconds for a reader to be there; loading a library for the first time is most of it."""
_TOLD_WITHIN = 10.0
_STREAM_BYTES = 1024 * 1024
_RETRY_AFTER = 5


class Process:
    """A process that the zygote forked. ``gone`` is done when it is dead, ``status`` when it is
    known how it ended: a wait status, ``None`` if nobody can tell any more."""

    def __init__(self, descriptor: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.status: asyncio.Future[int | None] = self._loop.create_future()
        self._loop.add_reader(descriptor, self._died)

    def kill(self) -> None:
        """Kill it, if it is still there: nothing can refuse."""
        if not self.gone.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def _died(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.gone.set_result(None)


class Reader:
    """A process that reads one document, and the stream on which it tells what it finds."""

    def __init__(
        self, process: Process, incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._incoming = incoming
        self._outgoing = outgoing

    def tell(self, data: bytes) -> None:
        """Send it a frame."""
        self._outgoing.write(data)

    async def receive(self) -> Message:
        """Return the next thing that it tells.

        Raises:
            ValueError: it is nothing that a reader says.
            asyncio.IncompleteReadError, ConnectionError: it has ended.
        """
        length, kind = HEADER.unpack(await self._incoming.readexactly(HEADER.size))
        if length > FRAME_MAX:
            raise ValueError("a frame that is too long")
        return decode(kind, await self._incoming.readexactly(length))

    async def exit_code(self) -> int | None:
        """Wait for its end; return its exit code, a negative signal, or ``None`` if the zygote is
        gone that would know."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TOLD_WITHIN):
                status = await asyncio.shield(self._process.status)
                return None if status is None else os.waitstatus_to_exitcode(status)
        return None

    async def end(self) -> None:
        """Kill it, and see it dead and its stream closed, whoever cancels."""
        self._process.kill()
        self._outgoing.transport.abort()
        await uninterrupted(self._ended())

    async def _ended(self) -> None:
        with suppress(OSError):  # that it broke off is no news any more
            await self._outgoing.wait_closed()
        await self._process.gone


class Forker:
    """One zygote process."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._births: deque[asyncio.Future[Process | None]] = deque()
        self._children: dict[int, Process] = {}
        self._stopped = False
        self._process, self._control = _spawn()
        self._descriptor = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._control.fileno(), self._readable)
        self._loop.add_reader(self._descriptor, self._died)

    @property
    def stopped(self) -> bool:
        """Whether it forks no more."""
        return self._stopped

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._process.pid

    async def reader(self, kind: DocumentKind, document: BinaryIO) -> Reader:
        """Have a reader forked for a document.

        Raises:
            Unavailable: none can be had now.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._forked(kind, theirs, document)
        except BaseException:
            ours.close()
            raise
        try:
            streams = await asyncio.open_unix_connection(sock=ours, limit=_STREAM_BYTES)
        except BaseException:
            ours.close()
            process.kill()
            raise
        return Reader(process, *streams)

    async def _forked(
        self, kind: DocumentKind, theirs: socket.socket, document: BinaryIO
    ) -> Process:
        born: asyncio.Future[Process | None] = self._loop.create_future()
        try:
            descriptors = [theirs.fileno(), document.fileno()]
            socket.send_fds(self._control, [kind.encode()], descriptors)
            self._births.append(born)
            async with asyncio.timeout(_BORN_WITHIN):
                process = await born
        except OSError as error:  # it is dying, or does not answer
            self._process.kill()
            self.stop()
            raise _cannot_start() from error
        except asyncio.CancelledError:
            if born.done() and not born.cancelled() and (process := born.result()) is not None:
                process.kill()
            raise
        if process is None:
            raise _cannot_start()
        return process

    def stop(self) -> None:
        """Let it end: it leaves when its socket closes, and its readers with it."""
        if not self._stopped:
            self._stopped = True
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            for born in self._births:
                if not born.done():
                    born.set_result(None)

    async def close(self) -> None:
        """Stop it and wait until it is gone."""
        self.stop()
        await asyncio.wait([self.gone], timeout=2.0)
        if not self.gone.done():
            self._process.kill()
            await self.gone

    def _readable(self) -> None:
        while not self._stopped:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._process.kill()
                self.stop()
                return
            self._take(data, descriptors)

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        if data[:1] == BORN:
            _, pid = STARTED.unpack(data)
            process = self._children[pid] = Process(*descriptors)
            born = self._births.popleft()
            if born.done():  # nobody waits for it any more
                process.kill()
            else:
                born.set_result(process)
        else:
            _, pid, status = ENDED.unpack(data)
            self._children.pop(pid).status.set_result(status)

    def _died(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._process.wait()
        self.stop()
        for process in self._children.values():
            process.status.set_result(None)
        self._children.clear()
        self.gone.set_result(None)


def _cannot_start() -> Unavailable:
    message = "The process that reads documents cannot be started now."
    return Unavailable(message, retry_after=_RETRY_AFTER)


def _spawn() -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs:
        process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-I", "-m", "insula.adapters.extraction.zygote", str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={},
            cwd="/",
            close_fds=True,
            process_group=0,
        )
    return process, ours
