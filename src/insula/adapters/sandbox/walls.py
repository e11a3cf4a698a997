"""Whether the walls stand: native code tries to get through them, from inside real workers.

Each wall is also probed with others left out, so that one is not taken for another: Landlock is
seen without seccomp, the network namespace without both.
"""

import asyncio
import os
import socket
import tempfile
from dataclasses import dataclass

import msgspec

from insula.adapters.sandbox import frames
from insula.adapters.sandbox.forker import Forker, Listener
from insula.adapters.sandbox.frames import Attempt, Kind
from insula.adapters.sandbox.probes import Targets
from insula.adapters.sandbox.process import Worker
from insula.adapters.sandbox.zygote import PROBE
from insula.engine.ports import Lane

REQUIRED = frozenset(("environment", "no_new_privs", "landlock", "limits", "seccomp"))
"""What must stand everywhere; without a network namespace seccomp still forbids every socket."""

_SECONDS = 20.0
_BOUND = 64 * 1024
_EVERYTHING = "everything"
# which wall is judged by which attempts, in a worker that lacks the walls named first
_FILES = (
    "read a file",
    "write a file",
    "make a file",
    "list a folder",
    "read the server's environment",
    "read its own environment",
)
_OTHERS = ("signal the server", "trace the server", "read the server's memory")
_JUDGED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "environment": ((), ("read the environment",)),
    "no_new_privs": ((), ("gain privileges",)),
    "limits": (("seccomp",), ("dump core", "take all memory", "lift a limit")),
    "seccomp": (
        ("landlock", "limits", "credentials"),
        (
            *_FILES,
            *_OTHERS,
            "open a socket",
            "open a local socket",
            "fork",
            "run a program",
            "set up a ring",
            "leave the filter",
        ),
    ),
    "landlock": (("seccomp", "limits", "credentials"), _FILES),
    "network": (("seccomp", "landlock", "limits"), ("see a network", "reach the loopback")),
    "credentials": (("seccomp", "limits", "landlock"), ("become root", "change the root")),
    _EVERYTHING: ((), ()),
}


@dataclass(frozen=True, slots=True)
class Wall:
    """One wall: whether it stands, and what was seen."""

    name: str
    standing: bool
    detail: str


async def inspect(lane: Lane = "quickjs", path: str | None = None) -> list[Wall]:
    """Probe every wall of a lane. ``path`` is a file to reach for, by default a temporary one.

    Raises:
        TimeoutError: no worker comes up.
    """
    reports = await probe(lane, path)
    walls = [_judge(name, reports[name]) for name in _JUDGED if name != _EVERYTHING]
    return [*walls, _judge_everything(lane, reports[_EVERYTHING])]


async def probe(lane: Lane, path: str | None = None) -> dict[str, list[Attempt]]:
    """Let native code try everything, once a wall; return the reports by wall."""
    with tempfile.NamedTemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(file.name, 0o666)  # noqa: S103  # so that nothing but the walls protects it
        port = server.getsockname()[1]
        async with asyncio.timeout(_SECONDS):
            return await _Probing(lane, path or file.name, port).run()


class _Probing:
    """One zygote, and a worker for each wall, one after another."""

    def __init__(self, lane: Lane, path: str, port: int) -> None:
        self._lane: Lane = lane
        self._path = path
        self._port = port
        self._report: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._worker: Worker | None = None

    async def run(self) -> dict[str, list[Attempt]]:
        listener = Listener(self._born, lambda _: None, self._ended, lambda _: self._fail())
        forker = Forker(self._lane, listener)
        reports = {}
        try:
            for name, (skip, _) in _JUDGED.items():
                self._report = asyncio.get_running_loop().create_future()
                targets = Targets(list(skip), self._path, os.getpid(), self._port)
                forker.fork(PROBE + msgspec.json.encode(targets))
                reports[name] = frames.decode_attempts(await self._report)
                if self._worker is not None:
                    await self._worker.death
        finally:
            if self._worker is not None:
                self._worker.kill()
            await forker.close()
        return reports

    def _born(self, worker: Worker) -> None:
        self._worker = worker
        worker.begin(self._receive, _BOUND, b"")

    def _receive(self, kind: int, data: bytes) -> None:
        if kind == Kind.PROBED and not self._report.done():
            self._report.set_result(data)

    def _ended(self, worker: Worker) -> None:
        self._fail()

    def _fail(self) -> None:
        if not self._report.done():
            self._report.set_exception(OSError("the probe ended without a report"))


def _judge(name: str, attempts: list[Attempt]) -> Wall:
    missing = [attempt for attempt in attempts if attempt.name == f"missing {name}"]
    if missing:
        return Wall(name, False, missing[0].detail)
    wanted = _JUDGED[name][1]
    return _wall(name, [attempt for attempt in attempts if attempt.name in wanted])


def _judge_everything(lane: Lane, attempts: list[Attempt]) -> Wall:
    tried = [attempt for attempt in attempts if not attempt.name.startswith("missing ")]
    if lane == "v8":  # its compiler writes code
        tried = [attempt for attempt in tried if attempt.name != "map code"]
    return _wall("all together", tried)


def _wall(name: str, tried: list[Attempt]) -> Wall:
    through = [f"{attempt.name}: {attempt.detail}" for attempt in tried if not attempt.stopped]
    if through:
        return Wall(name, False, "; ".join(through))
    seen = ", ".join(f"{attempt.name}: {attempt.detail}" for attempt in tried)
    return Wall(name, bool(tried), seen)
