"""The server's handle of one worker: its socket, its pidfd, its end.

Everything runs as callbacks of the event loop, without a task or a thread a worker. What arrives is
cut into frames, each bounded; a worker that breaks the protocol is killed.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from insula.adapters.sandbox import frames
from insula.adapters.sandbox.frames import HEADER, OVERHEAD, Kind
from insula.engine.ports import Lane

_CHUNK = 1 << 18
_STATUS_GRACE = 0.25
"""Seconds to wait for the zygote to say how a worker died; only the wording depends on it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker died: its wait status, and the most memory it ever held, in bytes."""

    status: int
    resident: int

    @property
    def words(self) -> str:
        """Say it for people."""
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            with contextlib.suppress(ValueError):
                return signal.Signals(number).name
            return f"signal {number}"
        return f"exit code {os.waitstatus_to_exitcode(self.status)}"


@dataclass(slots=True, eq=False)
class _Unsent:
    """A frame on its way: what is left of it, and who waits until it is gone."""

    rest: memoryview
    taken: asyncio.Future[None]


class Worker:
    """One worker process, seen from the server."""

    def __init__(
        self,
        lane: Lane,
        pid: int,
        descriptor: int,
        end: socket.socket,
        on_ready: Callable[["Worker"], None],
        on_end: Callable[["Worker"], None],
    ) -> None:
        self.lane: Lane = lane
        self.pid = pid
        self.of: tuple[str, str] | None = None
        """The app that it serves, and the one whose code it runs, for life."""
        self.idle_since = 0.0
        self.served = 0
        self.ready: frames.Ready | None = None
        self.ended: Ended | None = None
        self.killed = False
        self.gone = False
        self._loop = asyncio.get_running_loop()
        self.death: asyncio.Future[None] = self._loop.create_future()
        self._descriptor = descriptor
        self._end = end
        self._socket = end.fileno()
        self._on_ready = on_ready
        self._on_end = on_end
        self._receive: Callable[[int, bytes], None] | None = None
        self._bound = OVERHEAD
        self._incoming = bytearray()
        self._outgoing: deque[_Unsent] = deque()
        self._grace: asyncio.TimerHandle | None = None
        end.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)
        self._loop.add_reader(descriptor, self._died)

    def begin(self, receive: Callable[[int, bytes], None], bound: int, data: bytes) -> None:
        """Start an evaluation: ``receive`` gets each frame, none longer than ``bound`` bytes."""
        self._receive = receive
        self._bound = bound
        self.served += 1
        self.send(data)

    def end(self) -> None:
        """The evaluation is over; whatever the worker still says is a breach."""
        self._receive = None
        self._bound = OVERHEAD

    def send(self, data: bytes | bytearray) -> asyncio.Future[None]:
        """Send a frame, in the background where the socket is full.

        The future is done when the worker has taken the frame: never, where it dies before.
        """
        taken = self._loop.create_future()
        if self.gone:
            return taken
        self._outgoing.append(_Unsent(memoryview(data), taken))
        if len(self._outgoing) == 1:
            self._flush()
            if self._outgoing:
                self._loop.add_writer(self._socket, self._writable)
        return taken

    @property
    def unsent(self) -> int:
        """How many frames the worker has yet to take."""
        return len(self._outgoing)

    def kill(self) -> None:
        """End the process. It is dead when ``death`` is done, about a millisecond later."""
        if not self.killed and not self.gone:
            self.killed = True
            self._signal()

    def _signal(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it is dead, its pidfd is yet to be read
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used, all its threads together."""
        try:
            # the kernel's CPU clock of another process, see clock_getcpuclockid(3)
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def reaped(self, ended: Ended) -> None:
        """Take the zygote's word on how it died."""
        self.ended = ended
        if self._grace is not None:
            self._grace.cancel()
            self._finish()

    def _flush(self) -> None:
        """Send as much of the first frame as the socket takes at once, and let others go on."""
        first = self._outgoing[0]
        try:
            first.rest = first.rest[self._end.send(first.rest) :]
        except BlockingIOError:
            return
        except OSError:  # the worker is dying: its pidfd tells
            self._outgoing.clear()
            return
        if not first.rest:
            self._outgoing.popleft()
            if not first.taken.done():  # who waited may have been cancelled
                first.taken.set_result(None)

    def _writable(self) -> None:
        self._flush()
        if not self._outgoing:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._end.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._signal()  # it is dying; should it only have hung up, it shall
            return
        self._incoming += data
        self._cut()

    def _cut(self) -> None:
        buffer = self._incoming
        while len(buffer) >= HEADER.size:
            length, kind = HEADER.unpack_from(buffer)
            if length > self._bound:
                self._breach()
                return
            end = HEADER.size + length
            if len(buffer) < end:
                return
            data = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            self._deliver(kind, data)

    def _deliver(self, kind: int, data: bytes) -> None:
        if kind == Kind.READY and self.ready is None:
            try:
                self.ready = frames.decode_ready(data)
            except msgspec.DecodeError:
                self._breach()
                return
            self._on_ready(self)
        elif self._receive is not None:
            self._receive(kind, data)
        else:
            self._breach()

    def _breach(self) -> None:
        self._incoming.clear()
        self.kill()

    def _died(self) -> None:
        while not self.killed and self._unread():  # it may have answered before it died
            pass
        self.gone = True
        self._outgoing.clear()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._loop.remove_reader(self._descriptor)
        self._end.close()
        os.close(self._descriptor)
        if self.killed or self._receive is None or self.ended is not None:
            self._finish()
        else:
            self._grace = self._loop.call_later(_STATUS_GRACE, self._finish)

    def _unread(self) -> bool:
        try:
            data = self._end.recv(_CHUNK)
        except OSError:
            return False
        self._incoming += data
        self._cut()
        return bool(data)

    def _finish(self) -> None:
        self._grace = None
        if not self.death.done():
            self.death.set_result(None)
            self._on_end(self)
