"""The zygote: a process of its own, with an empty environment, that forks ready workers.

It runs no foreign code. The server asks over a socket (descriptor 0) and gets, for each worker, the
server's end of its socket and a pidfd, so that a kill never meets a recycled process id. When a
worker has ended, the zygote reaps it and says how. It dies with the server.
"""

import gc
import os
import select
import socket
import struct
import sys

from insula.adapters.sandbox import probes, worker
from insula.adapters.sandbox.confinement import Walls, die_with, keep_memory, leave_network
from insula.adapters.sandbox.engine import Engine
from insula.adapters.sandbox.engines import open_engine
from insula.adapters.sandbox.frames import Channel
from insula.engine.ports import Lane

FORK, PROBE = b"F", b"P"
"""What the server asks for; ``PROBE`` is followed by what native code shall try."""
BORN, DEAD = b"B", b"D"
"""What the zygote says; ``BORN`` carries two descriptors."""
ENDED = struct.Struct("<cIiQ")
"""``DEAD``, the process id, the wait status, the most memory it ever held in KiB."""
_NICE = 5
"""Foreign code gives way to the server that answers, however much of it computes. A niceness counts
among the processes of one session (sched(7), autogroups): the zygote stays in the server's."""
STARTED = struct.Struct("<cI")


class Zygote:
    """The loop that forks and reaps."""

    def __init__(self, lane: Lane, engine: Engine, missing: list[tuple[str, str]]) -> None:
        self._lane: Lane = lane
        self._engine = engine
        self._missing = missing
        self._control = socket.socket(fileno=0)
        self._null = os.open(os.devnull, os.O_RDWR)
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._children: dict[int, int] = {}

    def serve(self) -> None:
        """Answer until the server is gone."""
        while True:
            for descriptor, _ in self._poll.poll():
                try:
                    if descriptor in self._children:
                        self._reap(descriptor)
                        continue
                    request = self._control.recv(65536)
                    if not request:
                        return
                    self._fork(request)
                except (BrokenPipeError, ConnectionResetError):
                    return

    def _fork(self, request: bytes) -> None:
        ours, theirs = socket.socketpair()
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(theirs, zygote, request)
        theirs.close()
        descriptor = os.pidfd_open(pid)
        self._children[descriptor] = pid
        self._poll.register(descriptor, select.POLLIN)
        with ours:
            socket.send_fds(self._control, [STARTED.pack(BORN, pid)], [ours.fileno(), descriptor])

    def _become_worker(self, end: socket.socket, zygote: int, request: bytes) -> None:
        try:
            os.dup2(end.fileno(), 0)
            os.dup2(self._null, 1)
            os.dup2(self._null, 2)
            os.closerange(3, 1 << 16)
            channel = Channel(0)
            skip, given = probes.parse(request[1:]) if request[:1] == PROBE else (frozenset(), None)
            walls = Walls(self._lane, zygote, skip)
            walls.missing += self._missing
            walls.raise_all()
            if given is not None:
                probes.serve(channel, walls, given)
            else:
                worker.serve(channel, walls, self._engine)
        finally:
            os._exit(1)

    def _reap(self, descriptor: int) -> None:
        pid = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status, usage = os.wait4(pid, 0)
        self._control.send(ENDED.pack(DEAD, pid, status, usage.ru_maxrss))


def main() -> None:
    """Run a zygote for the lane named first, under the server whose process id is second."""
    lane: Lane = "v8" if sys.argv[1] == "v8" else "quickjs"
    die_with(int(sys.argv[2]))
    os.closerange(3, 1 << 16)
    os.chdir("/")
    os.nice(_NICE)
    keep_memory()
    engine = open_engine(lane)
    engine.preload()
    worker.load_parts()
    missing = []
    try:
        leave_network()
    except OSError as error:
        missing.append(("network", str(error)))
    gc.collect()
    gc.freeze()
    gc.disable()
    Zygote(lane, engine, missing).serve()


if __name__ == "__main__":
    main()
