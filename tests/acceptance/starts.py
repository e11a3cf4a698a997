"""Servers as copies of a process that has loaded the program: that is most of the time of a start.

Each is a process of its own, in a session of its own, with the environment that it is given, as if
the command had been typed. What a copy cannot have, a library that is loaded before all others, is
started by the command (``typed``), as are servers in the tests of the command line.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

_LOADED = ["uvloop", "insula.cli.main", "insula.cli.hosting"]
_copies = multiprocessing.get_context("forkserver")
_copies.set_forkserver_preload(_LOADED)


class Started(Protocol):
    """A process that was started, as ``subprocess`` shows it."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class _Copy:
    """A copy, by what its parent tells of it."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("insula", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, sig: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, sig)


def start(arguments: list[str], environment: Mapping[str, str], log: Path) -> Started:
    """Start an ``insula`` command whose words go to a file."""
    if "LD_PRELOAD" in environment:
        return typed(arguments, environment, log)
    words = (arguments, dict(environment), str(log))
    process = _copies.Process(target=_begin, args=words, daemon=True)
    process.start()
    return _Copy(process)


def typed(arguments: list[str], environment: Mapping[str, str], log: Path) -> Started:
    """Start it as a user does."""
    with log.open("ab") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "insula", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            env=environment,
            start_new_session=True,
        )


def _begin(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Become the command, in the copy."""
    from insula.cli.main import main

    os.setsid()
    told = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(told, 1)
    os.dup2(told, 2)
    os.close(told)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text stream here
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["insula", *arguments]
    main()
