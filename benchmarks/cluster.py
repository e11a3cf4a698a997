"""Two nodes on one PostgreSQL database and one broker: light runs at both, cancels through the node
that does not run them, the runs of a node that was killed, and erasing by both.

    python benchmarks/cluster.py [SECONDS] [CANCELS] [ERASED]
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.nats import NatsServer, binary

from benchmarks.client import percentile, request
from benchmarks.databases import postgres
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving
from benchmarks.stored import LEFT, MAKE_DUE, PostgresStored, fill

CALLERS = 16
_ORPHANS = 10
_WAITING = {
    "name": "Waiting",
    "steps": [
        {"type": "code", "key": "before", "code": "return 1", "destinations": ["wait"]},
        {"type": "code", "key": "wait", "code": "await util.sleep(1500); return before.output"},
    ],
}
_SLEEPING = {
    "name": "Sleeping",
    "steps": [{"type": "code", "key": "sleep", "code": "await util.sleep(3600000)"}],
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Its nodes, the database they share, and one app's key."""

    nodes: list[Server]
    stored: PostgresStored
    key: str


async def measure(seconds: float, cancels: int, erased: int) -> dict[str, Any]:
    """Return the figures of two nodes; of one of them, for comparison, those of light runs."""
    async with _two() as cluster:
        found: dict[str, Any] = {"light": await _light(cluster, seconds)}
        found["cancel"] = await _cancels(cluster, cancels)
        found["erase"] = await _erase(cluster, erased)
        found["recovery"] = await _recovery(cluster)  # the last: a node is dead then
    return found


@asynccontextmanager
async def _two() -> AsyncIterator[Cluster]:
    program = binary()
    if program is None:
        raise RuntimeError("no nats-server here: install the system's package")
    async with AsyncExitStack() as stack:
        url = (await stack.enter_async_context(postgres())).create()
        broker = NatsServer(program)
        stack.callback(broker.close)
        await asyncio.to_thread(broker.start)
        nodes = []
        for _ in range(2):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = {"database_url": url, "cluster_url": broker.url, "sandbox_max": "32"}
            node = serving(folder, **settings, runs_share="1", drain_seconds="1")
            nodes.append(await stack.enter_async_context(node))
        yield Cluster(nodes, PostgresStored(url), await nodes[0].app("Bench"))


async def _light(cluster: Cluster, seconds: float) -> dict[str, Any]:
    """Drive light runs at one node, and then at both with as many callers in all."""
    made = await cluster.nodes[0].deploy(cluster.key, light())
    body = json.dumps(LIGHT_INPUT).encode()
    data = request("POST", f"/apps/c/workflows/{made}/runs", cluster.key, body)
    for node in cluster.nodes:
        await drive_apart(node.port, data, CALLERS, 0, seconds / 2)
    one = await drive_apart(cluster.nodes[0].port, data, CALLERS, 0.2, seconds)
    share = CALLERS // len(cluster.nodes)
    both = await asyncio.gather(
        *(drive_apart(node.port, data, share, 0.2, seconds) for node in cluster.nodes)
    )
    two = {
        "rate": sum(each["rate"] for each in both),
        "p50_ms": max(each["p50_ms"] for each in both),
        "p99_ms": max(each["p99_ms"] for each in both),
    }
    return {"one node": one, "two nodes": two}


async def _cancels(cluster: Cluster, samples: int) -> dict[str, float]:
    """Cancel at the second node what runs at the first."""
    here, there = cluster.nodes
    made = await here.deploy(cluster.key, _SLEEPING)
    path = f"/workflows/{made}/runs"
    took = []
    for _ in range(samples):
        run = await _begun(here, cluster.key, path)
        began = time.perf_counter()
        answer = await there.call(cluster.key, "POST", f"{path}/{run}/cancel")
        took.append((time.perf_counter() - began) * 1000)
        if answer["status"] != "CANCELLED":
            raise ValueError(f"not cancelled: {answer['status']}")
    took.sort()
    return {"samples": samples, "p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99)}


async def _begun(node: Server, key: str, path: str) -> str:
    """Start a run in a stream, which stays where it landed, leave it, and return its id."""
    headers = {"authorization": f"Bearer {key}"}
    body = {"stream": True, "on_disconnect": "continue"}
    async with node.http.stream("POST", f"/apps/c{path}", json=body, headers=headers) as answer:
        found = ""
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
                found = found or str(told["id"])
            if line == "event: step":
                return found
    raise ValueError("the stream ended before a step began")


async def _erase(cluster: Cluster, count: int) -> dict[str, float]:
    """Let both nodes erase what is due."""
    made = await cluster.nodes[0].deploy(cluster.key, light() | {"name": "Due", "key": "due"})
    await asyncio.to_thread(fill, cluster.stored, made, count)
    due = f"{MAKE_DUE} AND workflow_id = '{made}'"
    began = time.perf_counter()
    await asyncio.to_thread(cluster.stored.rows, due)
    while await asyncio.to_thread(cluster.stored.rows, LEFT):  # noqa: ASYNC110  others erase
        await asyncio.sleep(0.05)
    # They look once a second: that is part of it, and so is making them due.
    return {"runs": count, "rate": count / (time.perf_counter() - began)}


async def _recovery(cluster: Cluster) -> dict[str, float]:
    """Kill a node among its runs; return how long after that the other has ended them all."""
    dying, living = cluster.nodes
    made = await dying.deploy(cluster.key, _WAITING)
    path = f"/workflows/{made}/runs"
    ids = [await _begun(dying, cluster.key, path) for _ in range(_ORPHANS)]
    dying.kill()
    began = time.perf_counter()
    completed = 0
    for run_id in ids:
        while True:
            run = await living.call(cluster.key, "GET", f"{path}/{run_id}")
            if run["ended_at"] is not None:
                break
            await asyncio.sleep(0.02)
        completed += run["status"] == "COMPLETED"
    return {"seconds": time.perf_counter() - began, "lost": _ORPHANS - completed}


if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:]] + [5.0, 200, 50_000][len(sys.argv) - 1 :]
    print(json.dumps(asyncio.run(measure(given[0], int(given[1]), int(given[2]))), indent=1))
