"""The zygote of readers: a process of its own, with an empty environment, that forks one for each
document.

It never sees a byte of a document. What reading a kind takes is loaded when the first of that kind
comes, and inherited by all readers. The server asks over a socket (descriptor 0) with a kind, the
reader's end of a stream and the document; it gets a pidfd, so that a kill never meets a recycled
process id. When a reader has ended, the zygote reaps it and says how. It dies with the server.
"""

import gc
import os
import resource
import select
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

from insula.adapters.extraction import worker
from insula.adapters.extraction.messages import DocumentKind
from insula.adapters.sandbox.confinement import die_with, leave_network

BORN, DEAD = b"B", b"D"
"""What the zygote says; ``BORN`` carries a pidfd."""
STARTED = struct.Struct("<cI")
"""``BORN``, the process id."""
ENDED = struct.Struct("<cIi")
"""``DEAD``, the process id, the wait status."""

_NICE = 10
_FIRST_VICTIM = "500"
_DESCRIPTORS = 256
"""More than readers are ever at work; none of the zygote's own is above."""


class Zygote:
    """The loop that forks and reaps."""

    def __init__(self, missing: list[tuple[str, str]]) -> None:
        self._missing = missing
        self._control = socket.socket(fileno=0)
        self._null = os.open(os.devnull, os.O_RDWR)
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._children: dict[int, int] = {}
        self._prepared: dict[DocumentKind, worker.Read] = {}

    def serve(self) -> None:
        """Answer until the server is gone."""
        while True:
            for descriptor, _ in self._poll.poll():
                try:
                    if descriptor in self._children:
                        self._reap(descriptor)
                        continue
                    kind, descriptors, _, _ = socket.recv_fds(self._control, 64, 2)
                    if not kind:
                        return
                    self._fork(kind.decode(), *descriptors)
                except (BrokenPipeError, ConnectionResetError):
                    return

    def _fork(self, name: str, stream: int, document: int) -> None:
        kind: DocumentKind = next(known for known in worker.MODULES if known == name)
        read = self._prepared.get(kind)
        if read is None:
            read = self._prepared[kind] = worker.prepare(kind)
            gc.collect()
            gc.freeze()  # a reader's collections would copy every page that they touch
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_reader(kind, read, zygote, stream, document)
        os.close(stream)
        os.close(document)
        descriptor = os.pidfd_open(pid)
        self._children[descriptor] = pid
        self._poll.register(descriptor, select.POLLIN)
        socket.send_fds(self._control, [STARTED.pack(BORN, pid)], [descriptor])

    def _become_reader(
        self, kind: DocumentKind, read: worker.Read, zygote: int, stream: int, document: int
    ) -> None:
        try:
            die_with(zygote)
            held = os.dup(document)  # its number may be one of those that are taken now
            for taken in (worker.SERVER, 1):
                os.dup2(stream, taken)
            os.dup2(self._null, 2)
            os.dup2(held, worker.DOCUMENT)
            os.closerange(worker.DOCUMENT + 1, _DESCRIPTORS)
            worker.serve(kind, read, zygote, self._missing)
        finally:
            os._exit(1)

    def _reap(self, descriptor: int) -> None:
        pid = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        self._control.send(ENDED.pack(DEAD, pid, status))


def main() -> None:
    """Run a zygote under the server whose process id is given."""
    die_with(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    os.chdir("/")
    _stand_back()
    missing = []
    try:
        leave_network()
    except OSError as error:
        missing.append(("network", str(error)))
    Zygote(missing).serve()


def _stand_back() -> None:
    """Let runs go first: with the processor, and where the kernel has no memory left.

    A niceness counts among the processes of one session, which is why the zygote stays in the
    server's (sched(7), autogroups).
    """
    os.nice(_NICE)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_VICTIM)


if __name__ == "__main__":
    main()
