"""The server's side of a zygote: starts it, asks it for workers, starts it again if it dies."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from insula.adapters.sandbox.process import Ended, Worker
from insula.adapters.sandbox.zygote import BORN, ENDED, FORK, STARTED
from insula.engine.ports import Lane


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a forker tells: a worker born, ready, ended; the zygote itself gone."""

    born: Callable[[Worker], None]
    ready: Callable[[Worker], None]
    ended: Callable[[Worker], None]
    down: Callable[["Forker"], None]


class Forker:
    """One zygote process. ``asked`` counts the workers asked for that are not yet born."""

    def __init__(self, lane: Lane, listener: Listener) -> None:
        self.lane: Lane = lane
        self.asked = 0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._workers: dict[int, Worker] = {}
        self._closing = False
        self._process, self._control = _spawn(lane)
        self._descriptor = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._control.fileno(), self._readable)
        self._loop.add_reader(self._descriptor, self._died)

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._process.pid

    def fork(self, request: bytes = FORK) -> None:
        """Ask for a worker; ``born`` is told of it."""
        self.asked += 1
        try:
            self._control.send(request)
        except OSError:  # it is dying, or so far behind that it will never catch up
            self._process.kill()

    def stop(self) -> None:
        """Let it end: it leaves when its socket closes, and its workers with it."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._control.fileno())
            self._control.close()

    async def close(self) -> None:
        """Stop it and wait until it is gone."""
        self.stop()
        await asyncio.wait([self.gone], timeout=2.0)
        if not self.gone.done():
            self._process.kill()
            await self.gone

    def _readable(self) -> None:
        while not self._closing:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, 64, 2)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._process.kill()
                self._loop.remove_reader(self._control.fileno())
                return
            self._take(data, descriptors)

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        if data[:1] == BORN:
            self.asked -= 1
            _, pid = STARTED.unpack(data)
            end, descriptor = descriptors
            worker = Worker(
                self.lane,
                pid,
                descriptor,
                socket.socket(fileno=end),
                self._listener.ready,
                self._listener.ended,
            )
            self._workers[pid] = worker
            self._listener.born(worker)
        else:
            _, pid, status, kibibytes = ENDED.unpack(data)
            worker = self._workers.pop(pid)
            worker.reaped(Ended(status, kibibytes * 1024))

    def _died(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._process.wait()
        self.stop()
        self.gone.set_result(None)
        self._listener.down(self)


def _spawn(lane: Lane) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    command = [sys.executable, "-I", "-m", "insula.adapters.sandbox.zygote"]
    with theirs:
        process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [*command, lane, str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={},
            cwd="/",
            close_fds=True,
            process_group=0,  # a terminal's Ctrl-C is for the server
        )
    return process, ours
