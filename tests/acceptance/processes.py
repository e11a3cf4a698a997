"""What the kernel knows of a process and of all that it started."""

import os
import time
from collections.abc import Callable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from the state on; ``None`` if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(") ")[2].split()


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    fields = _stat(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def family(pid: int) -> set[int]:
    """Return what a process started, what those started, and all of their session; not itself."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            parents[int(entry)] = int(fields[1])
            if int(fields[3]) == pid and fields[0] not in ("Z", "X"):  # its session
                found.add(int(entry))
    grown = {pid} | found
    while more := {child for child, parent in parents.items() if parent in grown} - grown:
        grown |= more
    return {member for member in grown - {pid} if alive(member)}


def sandboxes(servers: set[int]) -> set[int]:
    """Return the living sandboxes of any of these processes, whoever their parents are by now."""
    found = set()
    for entry in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
            continue
        if b"insula.adapters.sandbox.zygote" not in words or not words[-1].isdigit():
            continue
        if int(words[-1]) in servers and alive(int(entry)):
            found.add(int(entry))
    return found


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 if it is gone."""
    fields = _stat(pid)
    return 0.0 if fields is None else (int(fields[11]) + int(fields[12])) / _TICKS


def descriptors(pid: int) -> dict[str, int]:
    """Count a process's open files by what they are."""
    counted: dict[str, int] = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
        kind = target.partition(":")[0] if ":" in target else target
        counted[kind] = counted.get(kind, 0) + 1
    return counted


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask again and again until a condition holds: the kernel tells nobody."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)
