"""The walls around a worker, raised by the worker itself before the first byte of foreign code.

Order matters: credentials before the death signal (changing them clears it), Landlock before the
limits (it needs a descriptor), seccomp last (it forbids what raised the others).
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from insula.adapters.sandbox import landlock, seccomp
from insula.adapters.sandbox.seccomp import Profile

MIB = 1024 * 1024
MEMORY_CEILING = 2048 * MIB
"""The most memory that any evaluation may be allowed, in bytes."""

_NOBODY = 65534
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_M_TRIM_THRESHOLD, _M_TOP_PAD = -1, -2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522
# what an engine maps as writable before any script, beyond what the process has after its fork
_ENGINE_DATA: dict[Profile, int] = {"quickjs": 16 * MIB, "v8": 560 * MIB, "documents": 0}

libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; leave at once if it has already."""
    _call(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PDEATHSIG")
    if os.getppid() != parent:
        os._exit(1)


def keep_memory() -> None:
    """Keep freed memory for the next context: giving it back and faulting it in costs a third.

    A worker that has grown much is replaced anyway. Only glibc has this; see mallopt(3).
    """
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * MIB)
        libc.mallopt(_M_TOP_PAD, MIB)


def leave_network() -> None:
    """Enter an empty network namespace, with a user namespace where that takes one.

    Raises:
        OSError: this machine allows neither.
    """
    if libc.unshare(_CLONE_NEWNET) != 0:
        _call(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET), "network namespace")


class Walls:
    """Raises the walls of one worker and remembers which could not be had."""

    def __init__(self, lane: Profile, parent: int, skip: frozenset[str] = frozenset()) -> None:
        self._lane = lane
        self._parent = parent
        self._skip = skip
        self._data = _data_size() + _ENGINE_DATA[lane]
        self._memory = 0
        self.missing: list[tuple[str, str]] = []

    def raise_all(self) -> None:
        """Raise them, in order; what fails stands in ``missing`` with its reason."""
        self._raise("environment", _clear_environment)
        self._raise("credentials", _drop_credentials)
        die_with(self._parent)
        _call(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
        self._raise("no_new_privs", _no_new_privileges)
        self._raise("landlock", lambda: landlock.restrict(libc))
        self._raise("limits", self._limit)
        self._raise("seccomp", lambda: seccomp.install(libc, self._lane, os.getpid()))

    def limit_memory(self, memory: int) -> int:
        """Bound what this process may map as writable for an evaluation; return the bound in force.

        The engine's own limit comes first: this one is for what the engine does not count. Both
        the engine and the worker hold copies of what passes between them.
        """
        memory = min(memory, MEMORY_CEILING)
        if memory != self._memory and "limits" not in self._skip:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (self._data + 2 * memory + 64 * MIB, hard))
            self._memory = memory
        return memory

    def hold_memory(self, memory: int, mapped: int) -> None:
        """Bound what this process may map as writable, for good: ``mapped`` bytes of a document,
        and ``memory`` for what is made of them."""
        most = self._data + memory + mapped
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    def _raise(self, name: str, action: Callable[[], None]) -> None:
        if name in self._skip:
            return
        try:
            action()
        except (OSError, ValueError) as error:
            self.missing.append((name, str(error)[:200]))

    def _limit(self) -> None:
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(kind, (0, 0))
        for kind in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO):
            resource.setrlimit(kind, (0, 0))
        ceiling = self._data + 2 * MEMORY_CEILING + 64 * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
        if self._lane != "v8":  # V8 needs threads, and reserves terabytes that it never uses
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            space = ceiling + 1024 * MIB
            resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _clear_environment() -> None:
    os.environ.clear()
    _call(libc.clearenv(), "clearenv")


def _drop_credentials() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _call(libc.capset(header, bytes(24)), "capabilities")


def _no_new_privileges() -> None:
    _call(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _data_size() -> int:
    """Return how much this process has mapped as writable, in bytes: what RLIMIT_DATA counts."""
    pages = Path("/proc/self/statm").read_text().split()[5]
    return int(pages) * resource.getpagesize()
