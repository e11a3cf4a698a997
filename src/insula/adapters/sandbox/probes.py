"""Native code in place of JavaScript: what a script that broke out of its engine could try.

A probe runs in a real worker behind real walls, some of which may be left out so that another is
seen to stand by itself. ``insula doctor``, the server's start and the tests read its report.
"""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable

import msgspec

from insula.adapters.sandbox.confinement import Walls, libc
from insula.adapters.sandbox.frames import Attempt, Channel, Kind, frame


class Targets(msgspec.Struct):
    """What to reach for: the walls to leave out, a file, the server's process, a listening port."""

    skip: list[str]
    path: str
    server: int
    port: int


# what a call answers that was let through, but given nothing to do
_ALLOWED_BUT_VAIN = (errno.EFAULT, errno.ENOENT)
_decode = msgspec.json.Decoder(Targets).decode
_PTRACE_ATTACH = 16
_X86 = os.uname().machine == "x86_64"
_PTRACE, _SETUP_RING, _READ_OTHER = (101, 425, 310) if _X86 else (117, 425, 270)


def parse(data: bytes) -> tuple[frozenset[str], Targets]:
    """Read a probe's request."""
    targets = _decode(data)
    return frozenset(targets.skip), targets


def serve(channel: Channel, walls: Walls, targets: Targets) -> None:
    """Try everything, report, end."""
    attempts = [Attempt(f"missing {name}", False, reason) for name, reason in walls.missing]
    for name, action in _actions(targets).items():
        attempts.append(_attempt(name, action))
    channel.write(frame(Kind.PROBED, attempts))


def _attempt(name: str, action: Callable[[], object]) -> Attempt:
    try:
        return Attempt(name, False, f"it went through: {action()!s:.100}")
    except MemoryError:
        return Attempt(name, True, "ENOMEM")
    except OSError as error:
        refused = errno.errorcode.get(error.errno or 0, str(error))
        return Attempt(name, error.errno not in _ALLOWED_BUT_VAIN, refused)
    except (LookupError, ValueError) as error:
        return Attempt(name, True, str(error))


def _actions(targets: Targets) -> dict[str, Callable[[], object]]:
    def environment() -> object:
        names = sorted(os.environ)
        if not names:
            raise LookupError("empty")
        return names

    return {
        "read a file": lambda: os.open(targets.path, os.O_RDONLY),
        "write a file": lambda: os.open(targets.path, os.O_WRONLY),
        "make a file": lambda: os.open("/tmp/insula-probe", os.O_CREAT | os.O_WRONLY),  # noqa: S108  # what a break-out would try
        "list a folder": lambda: os.listdir("/"),
        "read the environment": environment,
        "read the server's environment": lambda: os.open(
            f"/proc/{targets.server}/environ", os.O_RDONLY
        ),
        "read its own environment": lambda: os.open("/proc/self/environ", os.O_RDONLY),
        "open a socket": lambda: socket.socket(socket.AF_INET).close(),
        "open a local socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "reach the loopback": lambda: _connect(targets.port),
        "see a network": _networks,
        "fork": _fork,
        # there is no such program: one that ran would end the probe
        "run a program": lambda: os.execv("/no/such/program", ["program"]),  # noqa: S606
        "signal the server": lambda: os.kill(targets.server, 0),
        "trace the server": lambda: _raw(_PTRACE, _PTRACE_ATTACH, targets.server, 0, 0),
        "read the server's memory": lambda: _read_memory(targets.server),
        "become root": lambda: os.setuid(0),
        "change the root": lambda: os.chroot("/"),
        "set up a ring": lambda: _raw(_SETUP_RING, 1, ctypes.create_string_buffer(120)),
        "map code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close(),
        "take all memory": lambda: mmap.mmap(-1, 1 << 36).close(),
        "gain privileges": _privileges,
        "lift a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
        "dump core": lambda: _lower(resource.RLIMIT_CORE),
        "leave the filter": _filter,
    }


def _raw(number: int, *arguments: object) -> int:
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _read_memory(pid: int) -> int:
    """Read an address that no process has: EFAULT would say that reading was allowed."""
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(buffer), 8)
    return _raw(_READ_OTHER, pid, local, 1, struct.pack("QQ", 4096, 8), 1, 0)


def _connect(port: int) -> None:
    with socket.socket(socket.AF_INET) as probe:
        probe.settimeout(1)
        probe.connect((b"127.0.0.1", port))  # as bytes: text would load a codec from a file


def _fork() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.kill(pid, signal.SIGKILL)
    return pid


def _networks() -> object:
    names = [name for _, name in socket.if_nameindex()]
    if names in ([], ["lo"]):
        raise LookupError("none but a loopback")
    return names


def _privileges() -> object:
    if libc.prctl(39, 0, 0, 0, 0) == 1:
        raise LookupError("no_new_privs is set")
    return "no_new_privs is not set"


def _filter() -> object:
    mode = libc.prctl(21, 0, 0, 0, 0)
    if mode == 2:
        raise LookupError("seccomp filters")
    return f"seccomp mode {mode}"


def _lower(kind: int) -> object:
    if resource.getrlimit(kind) == (0, 0):
        raise LookupError("limited to 0")
    return resource.getrlimit(kind)
