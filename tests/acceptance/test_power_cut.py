"""The power goes while the server works: whatever was told before stands on the disk.

The server writes to a disk that forgets what was not synced (``tests/chaos/disk.py``). Its log says
what would stand there at any moment, so that one life of a server shows many power cuts; at the
last of them the process dies, and the next life begins on what the disk has kept.
"""

import asyncio
import os
import random
import shutil
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Caller, Served, clients
from tests.acceptance.loopback import Loopback
from tests.chaos import work
from tests.chaos.client import Client
from tests.chaos.disk import Disk, Entry, Kind, Loss, build, compiler, loaded, read_log
from tests.chaos.history import History
from tests.chaos.remains import losses

SEED = int(os.environ.get("INSULA_SEED", "1"))
LIVES = 12 if SOAK else 3
CUTS = 60 if SOAK else 12
"""How many power cuts of each life are looked at."""
CLIENTS = 5
WORK = 60 if SOAK else 25
"""How many runs each client's life is long."""

pytestmark = pytest.mark.skipif(
    compiler() is None and not os.environ.get("CI"), reason="no C compiler (apt-get install gcc)"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


class Laboratory:
    """Where servers live on forgetful disks, one after another."""

    def __init__(
        self, place: Path, library: Path, settings: dict[str, str], loopback: Loopback
    ) -> None:
        self.place = place
        self.library = library
        self.settings = settings
        self.loopback = loopback
        self.chance = random.Random(SEED)
        self.told: list[History] = []
        self.apps: list[tuple[str, str, str]] = []
        """Of each app whose runs there are its id, its key, and its workflow that hangs."""

    def folder(self, name: str) -> Path:
        made = self.place / name
        made.mkdir()
        return made

    async def live(self, folder: Path, sync_us: int = 1_000, **more: str) -> list[Entry]:
        """Serve from a folder until the power goes; return what the disk was asked to do."""
        log = self.place / f"{folder.name}.disk"
        seen = loaded(self.library, folder, log, sync_us)
        served = Served(
            folder / "data", {**self.settings, **seen, **more}, self.place / f"{folder.name}.log"
        )
        await asyncio.to_thread(served.start)
        try:
            await self._work(served)
        finally:
            await asyncio.to_thread(served.kill)
        return read_log(log)

    async def _work(self, served: Served) -> None:
        """Let clients work, and stop in the midst of it."""
        async with clients(served) as made:
            caller = await made.app("Acme")
            paths = await work.deploy(caller, self.loopback.url)
            self.apps.append((caller.app_id, caller.key, paths["hang"].split("/")[1]))
            number = len(self.told)
            crowd = [
                Client(number + i, SEED, [caller], paths, self.loopback) for i in range(CLIENTS)
            ]
            histories = [client.history for client in crowd]
            self.told += histories
            tasks = [asyncio.create_task(client.live(asyncio.Event())) for client in crowd]
            try:
                async with asyncio.timeout(60):
                    while sum(len(history.claimed) for history in histories) < WORK * CLIENTS:
                        assert not any(task.done() for task in tasks), histories
                        await asyncio.sleep(0.01)
                await asyncio.sleep(self.chance.random() * 0.1)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        assert not [history.odd for history in histories if history.odd]

    async def end_all(self, folder: Path) -> None:
        """Serve once more, on an ordinary disk, until every run has ended; cancel what hangs."""
        served = Served(folder / "data", self.settings, self.place / "last.log")
        await asyncio.to_thread(served.start)
        try:
            async with clients(served) as made, asyncio.timeout(30):
                for app_id, key, hanging in self.apps:
                    caller = Caller(made.session, served, app_id, key)
                    await caller.ok("POST", "runs/cancel", {"workflow_id": hanging})
                    for run in await caller.ok("GET", "runs?status=RUNNING&take=100"):
                        path = f"workflows/{run['workflow_id']}/runs"
                        await caller.final(path, run["id"])
        finally:
            await asyncio.to_thread(served.stop)

    def examine(
        self, disk: Disk, entries: Sequence[Entry], loss: Loss, before_syncs: bool = False
    ) -> list[str]:
        """Cut the power at moments of one life; return all that was told and is lost.

        ``before_syncs`` takes the moments when most has been told since the last sync.
        """
        found: list[str] = []
        if before_syncs:
            times = sorted(told.at for history in self.told for told in history.told)
            cuts = set(_before_syncs(entries, times)[-CUTS:])
        else:
            begun = next(i for i, entry in enumerate(entries) if entry.kind is Kind.SYNCED)
            moments = range(begun, len(entries) - 1)
            cuts = set(self.chance.sample(moments, min(CUTS, len(moments))))
        for position, entry in enumerate(entries):
            disk.take(entry)
            if position in cuts and position + 1 < len(entries):
                found += self._cut(disk, entries[position + 1].at, loss)
        return found

    def _cut(self, disk: Disk, until: float, loss: Loss) -> list[str]:
        place = self.folder("cut")
        disk.restore(place, loss, self.chance)
        try:
            return losses(place / "data", self.told, until)
        finally:
            shutil.rmtree(place)


def _before_syncs(entries: Sequence[Entry], times: Sequence[float]) -> list[int]:
    """List the moments right before the write-ahead log is synced, by how much was told since it
    was before. Those of the later half: before, not even the tables need be there.
    """
    wal, began, before = -1, 0.0, 0.0
    found = []
    for position, entry in enumerate(entries):
        if entry.kind is Kind.CREATED and entry.first.endswith("-wal"):
            wal = entry.inode
        elif entry.kind is Kind.SYNCING and entry.inode == wal:
            began = entry.at
        elif entry.kind is Kind.SYNCED and entry.inode == wal:
            told = bisect(times, entry.at) - bisect(times, before)
            if position > len(entries) // 2:
                found.append((told, position - 1))
            before = began
    return [position for _, position in sorted(found)]


@pytest.fixture
def laboratory(
    tmp_path: Path, library: Path, settings: dict[str, str], loopback: Loopback
) -> Laboratory:
    return Laboratory(tmp_path, library, settings, loopback)


async def test_what_was_told_survives_power_cuts(laboratory: Laboratory) -> None:
    folder = laboratory.folder("life0")
    for life in range(LIVES):
        disk, lying = Disk(folder), Disk(folder, forgets_syncs=True)
        entries = await laboratory.live(folder)
        loss: Loss = "everything" if life % 2 == 0 else "something"
        assert laboratory.examine(disk, entries, loss) == [], f"INSULA_SEED={SEED}, life {life}"
        if life == 0:  # on a disk that lies about its syncs, it is seen
            assert laboratory.examine(lying, entries, "everything")
        folder = laboratory.folder(f"life{life + 1}")
        disk.restore(folder, loss, laboratory.chance)
        assert losses(folder / "data", laboratory.told, float("inf")) == []
    await laboratory.end_all(folder)
    assert losses(folder / "data", laboratory.told, float("inf")) == []


async def test_less_syncing_loses_something(laboratory: Laboratory) -> None:
    folder = laboratory.folder("normal")
    disk = Disk(folder)
    # No commit waits for so slow a disk, and much is told between two of its syncs.
    entries = await laboratory.live(folder, sync_us=200_000, INSULA_SYNCHRONOUS="NORMAL")
    lost = laboratory.examine(disk, entries, "everything", before_syncs=True)
    assert any("was told" in one for one in lost)
    assert not [one for one in lost if "damaged" in one or "cannot be read" in one]
