"""After hundreds of runs of all kinds, cancelled, failed and abandoned ones among them, the process
holds what it held before: files, threads, workers, tasks.
"""

import asyncio
import gc
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import insula
from insula.app import Insula, open_insula
from insula.settings import Settings
from tests.acceptance.harness import Caller, Clients, Served, clients
from tests.acceptance.kinds import KINDS, Kind, first, http
from tests.acceptance.loopback import Loopback
from tests.acceptance.processes import descriptors, family, threads, wait_until

PRODUCT = str(Path(insula.__file__).parent)
RUNS = 300
AT_ONCE = 12
WORKERS = 6
ZYGOTES = 2
SETTLE = 30.0
"""Seconds until what is kept for a while, idle workers and connections, has been let go."""
BUSY = [kind for kind in KINDS if kind.name != "iteration-1000"]


class Crowd:
    """Runs of all kinds, each ended in another way."""

    def __init__(self, caller: Caller, loopback: Loopback) -> None:
        self.caller = caller
        self.loopback = loopback
        self.numbers = itertools.count()
        self.paths: dict[str, str] = {}

    async def prepare(self) -> "Crowd":
        url = self.loopback.url
        documents: dict[str, list[dict[str, Any]]] = {k.name: k.steps(url) for k in BUSY}
        documents["quick"] = [first("asks"), http("asks", f"{url}/ok/{{{{input.tag}}}}")]
        documents["fails"] = [http("cut", f"{url}/cut/x"), http("hangs", f"{url}/hang/x")]
        for name, steps in documents.items():
            self.paths[name] = f"workflows/{await self.caller.push(steps)}/runs"
        return self

    async def run(self, count: int) -> None:
        """Run so many, some at a time."""
        left = iter(range(count))

        async def lane() -> None:
            for _ in left:
                number = next(self.numbers)
                ways = (self._cancelled, self._quick, self._abandoned, self._failing)
                await ways[number % len(ways)](number)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(lane())

    async def _cancelled(self, number: int) -> None:
        kind: Kind = BUSY[number // 4 % len(BUSY)]
        path, tag = self.paths[kind.name], f"leak-{number}"
        async with self.caller.stream(path, {"input": {"tag": tag}, "stream": True}) as stream:
            run_id = await stream.run_id()
            await kind.reached(stream, self.loopback, tag)
            run = await self.caller.ok("POST", f"{path}/{run_id}/cancel")
        assert run["status"] == "CANCELLED"

    async def _quick(self, number: int) -> None:
        run = await self.caller.ok("POST", self.paths["quick"], {"input": {"tag": f"q-{number}"}})
        assert run["status"] == "COMPLETED"

    async def _abandoned(self, number: int) -> None:
        """Go away in the midst of a stream; the run is to be cancelled then."""
        path, tag = self.paths["http-never-answered"], f"leak-{number}"
        body = {"input": {"tag": tag}, "stream": True, "on_disconnect": "cancel"}
        async with self.caller.stream(path, body) as stream:
            run_id = await stream.run_id()
            await self.loopback.arrived(tag)
        await self.loopback.left(tag)
        assert (await self.caller.final(path, run_id))["status"] == "CANCELLED"

    async def _failing(self, number: int) -> None:
        run = await self.caller.ok("POST", self.paths["fails"])
        assert run["status"] == "FAILED"


@pytest.fixture(scope="module")
def settings(settings: dict[str, str]) -> dict[str, str]:
    return {**settings, "INSULA_SANDBOX_MAX": str(WORKERS)}


async def test_a_server_holds_what_it_held(
    served: Served, callers: Clients, loopback: Loopback
) -> None:
    crowd = await Crowd(await callers.app("Acme"), loopback).prepare()
    await crowd.run(60)  # whatever is made once and kept is made now
    files, strands = Counter(descriptors(served.pid)), threads(served.pid)
    await crowd.run(RUNS)

    def settled() -> bool:
        grown = Counter(descriptors(served.pid)) - files
        return (
            grown.total() <= WORKERS  # idle ones are kept a while, with a socket each
            and threads(served.pid) <= strands
            and len(family(served.pid)) <= WORKERS + ZYGOTES
        )

    try:
        await asyncio.to_thread(wait_until, settled, SETTLE, "what was held before")
    except AssertionError as late:
        grown = Counter(descriptors(served.pid)) - files
        held = f"files {dict(grown)}, threads {strands} -> {threads(served.pid)}"
        raise AssertionError(f"{held}, processes {len(family(served.pid))}") from late
    for status in ("RUNNING", "PENDING"):
        assert await crowd.caller.ok("GET", f"runs?status={status}") == []


class Here(Served):
    """The product in this process, reached like a server."""

    def __init__(self, product: Insula, port: int, admin_key: str) -> None:
        super().__init__(product.settings.data_dir, {})
        self.url = f"http://127.0.0.1:{port}"
        self._key = admin_key

    @property
    def admin_key(self) -> str:
        return self._key


@pytest.fixture
async def here(
    tmp_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Here]:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    key = "insadm_of_this_test_alone"
    options: dict[str, Any] = {"admin_key": key, "egress_allow": "127.0.0.1"}
    async with open_insula(Settings(data_dir=tmp_path / "data", **options)) as product:
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(product.serve("127.0.0.1", 0, listening.set_result, stop))
        yield Here(product, await listening, key)
        stop.set()
        await serving


async def test_no_task_outlives_its_run(here: Here, loopback: Loopback) -> None:
    async with clients(here) as made:
        crowd = await Crowd(await made.app("Acme"), loopback).prepare()
        await crowd.run(60)
        before = await _settled_tasks()
        await crowd.run(RUNS // 2)
        after = await _settled_tasks()
    assert not after - before


async def test_nothing_of_a_run_is_left_to_the_collector(here: Here, loopback: Loopback) -> None:
    """It halts everybody; what a run leaves goes at once."""
    async with clients(here) as made:
        crowd = await Crowd(await made.app("Acme"), loopback).prepare()
        await crowd.run(60)
        await _settled_tasks()
        gc.collect()
        gc.disable()
        try:
            await crowd.run(60)
            await _settled_tasks()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert {name: count for name, count in left.items() if name.startswith("insula")} == {}


async def _settled_tasks() -> Counter[str]:
    """Count the product's tasks once they have come to rest."""
    counted = _tasks()
    for _ in range(200):
        await asyncio.sleep(0.05)
        counted, earlier = _tasks(), counted
        if counted.total() <= earlier.total() and not any("carry" in name for name in counted):
            break
    return counted


def _tasks() -> Counter[str]:
    found: Counter[str] = Counter()
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and code.co_filename.startswith(PRODUCT):
            found[code.co_qualname] += 1
    return found
