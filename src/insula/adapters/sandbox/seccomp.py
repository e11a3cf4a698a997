"""The system calls that a worker may make, as a seccomp filter in plain BPF.

An allow-list without dependencies: everything else answers EPERM, another architecture's calls kill
the process. Linux, seccomp(2); numbers from the kernel's syscall tables of x86-64 and arm64.
"""

import ctypes
import platform
import struct
from dataclasses import dataclass
from typing import Literal

from insula.engine.ports import Lane

Profile = Lane | Literal["documents"]
"""Whom a filter is for: an engine's worker, or a process that reads a document."""

_NUMBERS: dict[str, tuple[int, int]] = {
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "futex": (202, 98),
    "getcpu": (309, 168),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "madvise": (28, 233),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "read": (0, 63),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "sigaltstack": (131, 132),
    "write": (1, 64),
    # documents: reading, here and there, what is open already
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    # V8: threads of its own process, and memory that it writes code to
    "membarrier": (324, 283),
    "pkey_alloc": (330, 289),
    "pkey_free": (331, 290),
    "pkey_mprotect": (329, 288),
    "rseq": (334, 293),
    "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    # allowed with certain arguments only
    "clone": (56, 220),
    "clone3": (435, 435),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "tgkill": (234, 131),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_V8_ONLY = frozenset(
    (
        "membarrier",
        "pkey_alloc",
        "pkey_free",
        "pkey_mprotect",
        "rseq",
        "sched_getaffinity",
        "set_robust_list",
        "set_tid_address",
        "sysinfo",
        "uname",
    )
)
_DOCUMENTS_ONLY = frozenset(("fstat", "lseek", "pread64"))
_CONDITIONAL = frozenset(("clone", "clone3", "mmap", "mprotect", "prctl", "prlimit64", "tgkill"))

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_EPERM = 0x00050001
_ENOSYS = 0x00050026
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_X32 = 0x40000000
_PROT_EXEC = 4
_CLONE_THREAD = 0x00010000 | 0x00000100 | 0x00000800  # CLONE_THREAD | CLONE_VM | CLONE_SIGHAND
_CLONE_NEW = 0x7E020080  # the namespaces: NS, CGROUP, UTS, IPC, USER, PID, NET, and TIME
_PR_GET_SECCOMP, _PR_GET_NO_NEW_PRIVS, _PR_SET_NAME, _PR_SET_VMA = 21, 39, 15, 0x53564D41

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_Step = tuple[int, int, int, int]


def _low(argument: int) -> int:
    return 16 + 8 * argument


def _high(argument: int) -> int:
    return 20 + 8 * argument


@dataclass(frozen=True, slots=True)
class _Rule:
    """A call whose arguments decide: steps that run after its number matched, and return."""

    number: int
    steps: tuple[_Step, ...]


def _is(argument: int, value: int) -> tuple[_Step, ...]:
    """Allow if the whole 64-bit argument equals ``value`` (below 2 ** 32), else EPERM."""
    return (
        (_LOAD, 0, 0, _high(argument)),
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _low(argument)),
        (_EQUAL, 0, 1, value),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    )


def _one_of(argument: int, values: tuple[int, ...]) -> tuple[_Step, ...]:
    last = len(values) - 1
    tests = tuple((_EQUAL, last - i + 1, 0, value) for i, value in enumerate(values))
    return (
        (_LOAD, 0, 0, _low(argument)),
        *tests,
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    )


def _without(argument: int, bits: int) -> tuple[_Step, ...]:
    return (
        (_LOAD, 0, 0, _low(argument)),
        (_ANY_BIT, 1, 0, bits),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    )


_THREADS_ONLY: tuple[_Step, ...] = (
    (_LOAD, 0, 0, _low(0)),
    (_ANY_BIT, 3, 0, _CLONE_NEW),
    (_AND, 0, 0, _CLONE_THREAD),
    (_EQUAL, 0, 1, _CLONE_THREAD),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _EPERM),
)


def _conditional(lane: Profile, pid: int, column: int) -> list[_Rule]:
    names = (_PR_GET_SECCOMP, _PR_GET_NO_NEW_PRIVS, _PR_SET_VMA)
    no_code = _without(2, _PROT_EXEC)
    rules: dict[str, tuple[_Step, ...]] = {
        "prctl": _one_of(0, (*names, _PR_SET_NAME) if lane == "v8" else names),
        "prlimit64": _is(0, 0),
        "tgkill": _is(0, pid),
        "mmap": ((_RETURN, 0, 0, _ALLOW),) if lane == "v8" else no_code,
        "mprotect": ((_RETURN, 0, 0, _ALLOW),) if lane == "v8" else no_code,
        # glibc falls back to clone, whose flags a filter can see
        "clone3": ((_RETURN, 0, 0, _ENOSYS),),
    }
    if lane == "v8":
        rules["clone"] = _THREADS_ONLY
    return [_Rule(_NUMBERS[name][column], steps) for name, steps in rules.items()]


def program(lane: Profile, pid: int) -> list[_Step]:
    """Assemble the filter for a worker of this lane with this process id."""
    column, architecture = _ARCHITECTURES[platform.machine()]
    steps: list[_Step] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, 0),
    ]
    if column == 0:
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL_PROCESS)]
    for rule in _conditional(lane, pid, column):
        steps.append((_EQUAL, 0, len(rule.steps), rule.number))
        steps += rule.steps
    for name, numbers in _NUMBERS.items():
        if name in _CONDITIONAL:
            continue
        if (name in _V8_ONLY and lane != "v8") or (name in _DOCUMENTS_ONLY and lane != "documents"):
            continue
        steps += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _EPERM))
    return steps


def install(libc: ctypes.CDLL, lane: Profile, pid: int) -> None:
    """Put the filter over this process. It needs no_new_privs and cannot be taken back.

    Raises:
        OSError: the kernel has no seccomp, or the architecture is unknown here.
    """
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(f"no system call table for {platform.machine()}")
    steps = program(lane, pid)
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(
        struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(code))
    )
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp refused the filter")
