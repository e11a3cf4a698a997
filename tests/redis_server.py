"""A Redis server of the test session's own: started on first use, on a free port of the loopback,
in a folder of its own, and gone with the session or with its process. Valkey does as well.
"""

import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

_UP_WITHIN = 20.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def binary() -> str | None:
    """Return the path of the server's program."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """One server: its program, its folder, its port. The port stays through restarts."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._program = program
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="insula-redis-"))
        self.port = free_port()

    @property
    def url(self) -> str:
        """Return the address, without credentials."""
        return f"redis://127.0.0.1:{self.port}"

    def installation(self) -> str:
        """Return a name that no other test has used: installations share the server."""
        return f"t{os.getpid()}x{next(self._numbers)}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *("--bind", "127.0.0.1", "--port", str(self.port)),
                    *("--save", "", "--appendonly", "no"),
                    *self._arguments,
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it calls the C library alone
            )
        ends = time.monotonic() + _UP_WITHIN
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > ends:
                words = (self.folder / "log").read_text()[-2000:]
                raise RuntimeError(f"The server does not come up: {words}")
            time.sleep(0.01)  # another program's start: there is nothing to wait on

    def kill(self) -> None:
        """End the server as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop its process: connections stay and nothing answers."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.settimeout(1)
                one.sendall(b"PING\r\n")
                return one.recv(64)[:1] in (b"+", b"-")
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, how: signal.Signals) -> None:
        self._signal(signal.SIGCONT)
        self._signal(how)
        if self._process is not None:
            self._process.wait(timeout=20)
        self._process = None


def start_redis(*arguments: str) -> RedisServer:
    """Start a server of one's own; skips where the program is missing, but in CI fails.

    Who asks for it closes it.
    """
    program = binary()
    if program is None:
        words = "redis-server is not installed (Debian: apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    server = RedisServer(program, *arguments)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    """The session's server."""
    server = start_redis()
    yield server
    server.close()


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """The session's server, up. A test that stops or pauses it starts a server of its own."""
    return redis_session


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
