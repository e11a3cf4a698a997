"""Uploads and extraction beside live runs: what a document costs, and what runs feel of a hundred.

    python benchmarks/uploads.py [UPLOADS] [SECONDS] [sqlite|postgresql]

Figures of live runs are taken in windows of SECONDS, first idle, then one after another until every
document has been read; the first window is the one in which all the files arrive.
"""

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.adapters.extraction import documents

from benchmarks.client import Caller, request
from benchmarks.databases import Kind, database
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving

CALLERS = (1, 8)
PAGES = 20
_EACH = 3
"""Documents of a kind that are read alone, for what one costs."""
_SAMPLED = 0.5
_LIST = 100
_TICK = os.sysconf("SC_CLK_TCK")


def _letter(page: int) -> list[documents.Text]:
    words = "All work and no play makes a dull report, line after line"
    lines = [(50.0, 740.0 - 15 * n, 11.0, f"{n}. {words} {page * n}") for n in range(42)]
    return [(50.0, 790.0, 20.0, f"Part {page}"), *lines]


def make() -> dict[str, tuple[str, bytes]]:
    """Return the name and the bytes of a document of each kind."""
    rows: list[list[object]] = [[n, f"name {n}", n * 1.5, True] for n in range(500)]
    csv = "\n".join(f"{n},name {n},{n * 1.5}" for n in range(5_000))
    html = "".join(f"<h2>Part {n}</h2><p>Some <b>words</b> of it.</p>" for n in range(500))
    return {
        "pdf": ("a.pdf", documents.pdf(*(_letter(page) for page in range(1, PAGES + 1)))),
        "docx": ("a.docx", documents.word()),
        "xlsx": ("a.xlsx", documents.sheet(rows)),
        "png": ("a.png", documents.picture("PNG", (1600, 1200))),
        "html": ("a.html", f"<html><body>{html}</body></html>".encode()),
        "csv": ("a.csv", csv.encode()),
    }


def upload(key: str, name: str, data: bytes) -> bytes:
    """Make the bytes of a request that stores a file and has all of it extracted."""
    asked = ("document_extract_contents", "document_extract_images")
    parts = [b'Content-Disposition: form-data; name="%s"\r\n\r\ntrue' % n.encode() for n in asked]
    named = f'name="file"; filename="{name}"'.encode()
    parts.append(b"Content-Disposition: form-data; %s\r\n\r\n%s" % (named, data))
    body = b"".join(b"--b\r\n%s\r\n" % part for part in parts) + b"--b--\r\n"
    made = request("POST", "/apps/c/files", key, body)
    return made.replace(b"application/json", b"multipart/form-data; boundary=b", 1)


@dataclass(slots=True)
class Family:
    """The server's process, and those that read documents; found anew at each look."""

    server: int
    peaks: dict[str, float] = field(default_factory=dict)

    def readers(self) -> list[int]:
        """Return the zygote of readers and the readers."""
        parents: dict[int, int] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (fields := _stat(int(entry))) is not None:
                parents[int(entry)] = int(fields[1])
        found = [p for p, above in parents.items() if above == self.server and _reads(p)]
        return found + [p for p, above in parents.items() if above in found]

    def cpu(self) -> tuple[float, float]:
        """Return the seconds of processor time of the server and of all readers so far."""
        own, dead = _cpu(self.server)
        return own, dead + sum(sum(_cpu(pid)) for pid in self.readers())

    async def watch(self) -> None:
        """Note the most memory that the server and the readers hold together, for ever."""
        while True:
            readers = self.readers()
            held = {"server": _pss(self.server), "readers": sum(_pss(pid) for pid in readers)}
            for name, mebibytes in held.items():
                self.peaks[name] = max(mebibytes, self.peaks.get(name, 0.0))
            await asyncio.sleep(_SAMPLED)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _cpu(pid: int) -> tuple[float, float]:
    """Return what a process has used, and what those had that it reaped."""
    fields = _stat(pid) or ["0"] * 15
    own, dead = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / _TICK, dead / _TICK


def _reads(pid: int) -> bool:
    with suppress(OSError):
        return b"extraction" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _pss(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


async def _send(port: int, data: bytes) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
    try:
        status, body = await caller.ask(data)
    finally:
        caller.close()
    if status != 200:
        raise ValueError(f"answer {status}: {body[:300]!r}")
    made: dict[str, Any] = json.loads(body)
    return made


async def _statuses(server: Server, key: str) -> list[str]:
    found: list[str] = []
    for page in itertools.count(1):
        shown = await server.call(key, "GET", f"/files?take={_LIST}&page={page}")
        found += [each["file_status"] for each in shown]
        if len(shown) < _LIST:
            break
    return found


async def _until_read(server: Server, key: str) -> list[str]:
    while "PROCESSING" in (found := await _statuses(server, key)):  # noqa: ASYNC110  others read
        await asyncio.sleep(0.25)
    return found


async def _one(server: Server, family: Family) -> dict[str, dict[str, float]]:
    """Return what a document of each kind costs when it is alone, after a first of its kind."""
    found = {}
    for kind, (name, data) in make().items():
        key = await server.app(f"One {kind}")
        await _send(server.port, upload(key, name, data))
        await _until_read(server, key)
        ours, theirs = family.cpu()
        began = time.perf_counter()
        for _ in range(_EACH):
            await _send(server.port, upload(key, name, data))
            await _until_read(server, key)
        seconds = time.perf_counter() - began
        ours_then, theirs_then = family.cpu()
        found[kind] = {
            "reader_cpu_ms": (theirs_then - theirs) / _EACH * 1000,
            "server_cpu_ms": (ours_then - ours) / _EACH * 1000,
            "seconds": seconds / _EACH,
        }
    return found


Drive = Callable[[], Any]


async def _beside(
    server: Server, family: Family, drive: Drive, uploads: int, name: str
) -> dict[str, Any]:
    """Return the figures of live runs in the windows until all of so many documents were read."""
    key = await server.app(name)
    kinds = itertools.cycle(make().values())
    requests = [upload(key, *document) for document in itertools.islice(kinds, uploads)]
    before = family.cpu()
    began = time.perf_counter()
    took: dict[str, float] = {}

    async def all_of_it() -> list[str]:
        await asyncio.gather(*(_send(server.port, data) for data in requests))
        took["uploaded_seconds"] = time.perf_counter() - began
        statuses = await _until_read(server, key)
        took["extracted_seconds"] = time.perf_counter() - began
        return statuses

    work = asyncio.create_task(all_of_it())
    windows = [await drive()]
    while not work.done():
        windows.append(await drive())
    statuses = await work
    after = family.cpu()
    p99 = sorted(window["p99_ms"] for window in windows)
    return {
        **took,
        "failed": statuses.count("FAILED"),
        "arriving": windows[0],
        "windows": len(windows),
        "median_p99_ms": p99[len(p99) // 2],
        "worst_p99_ms": p99[-1],
        "server_cpu_seconds": after[0] - before[0],
        "reader_cpu_seconds": after[1] - before[1],
    }


async def measure(uploads: int, seconds: float, kind: Kind = "sqlite") -> dict[str, Any]:
    """Return what documents cost, live runs without them and beside them, and the memory."""
    with tempfile.TemporaryDirectory() as name:
        async with database(kind) as settings, serving(Path(name), **settings) as server:
            family = Family(server.process.pid)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(family.watch())
                found = await _measure(server, family, uploads, seconds)
                watching.cancel()
            return found | {"peak_mib": family.peaks}


async def _measure(server: Server, family: Family, uploads: int, seconds: float) -> dict[str, Any]:
    key = await server.app("Live")
    made = await server.deploy(key, light())
    body = json.dumps(LIGHT_INPUT).encode()
    data = request("POST", f"/apps/c/workflows/{made}/runs", key, body)
    found: dict[str, Any] = {"one": await _one(server, family)}
    for callers in CALLERS:

        def drive(callers: int = callers) -> Any:
            return drive_apart(server.port, data, callers, 0, seconds)

        await drive()
        idle = await drive()
        beside = await _beside(server, family, drive, uploads, f"Beside {callers}")
        beside["worst_ratio"] = beside["worst_p99_ms"] / idle["p99_ms"]
        found[f"callers: {callers}"] = {"idle": idle, "beside": beside}
    return found


async def _main() -> dict[str, Any]:
    uploads = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    kind: Kind = "postgresql" if sys.argv[3:] == ["postgresql"] else "sqlite"
    return await measure(uploads, seconds, kind)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main()), indent=1))
