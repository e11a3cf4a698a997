"""A server's life: its first run after the command, going on after a kill, memory over runs."""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.client import request
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving

_WAITING = {
    "name": "Waiting",
    "steps": [
        {"type": "code", "key": "before", "code": "return 1", "destinations": ["wait"]},
        {"type": "code", "key": "wait", "code": "await util.sleep(1500); return before.output"},
    ],
}
_RUNS = 20


async def first_run() -> float:
    """Return the seconds from the command to the first run's answer, in a new data folder."""
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        async with serving(Path(name)) as server:
            key = await server.app("Bench")
            made = await server.deploy(key, light())
            await server.call(key, "POST", f"/workflows/{made}/runs", LIGHT_INPUT)
            return time.perf_counter() - began


async def recovery() -> dict[str, float]:
    """Kill the server among running runs; return how long after the restart all have ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with serving(folder, sandbox_max="32", runs_share="1") as server:
            key = await server.app("Bench")
            made = await server.deploy(key, _WAITING)
            started = [
                await server.call(key, "POST", f"/workflows/{made}/runs", {"background": True})
                for _ in range(_RUNS)
            ]
            server.kill()
            await server.process.wait()
        began = time.perf_counter()
        async with serving(folder, sandbox_max="32", runs_share="1") as server:
            up = time.perf_counter() - began
            statuses = await _until_ended(server, key, made, [run["id"] for run in started])
            seconds = time.perf_counter() - began
    return {"seconds": seconds, "up_seconds": up, "lost": _RUNS - statuses.count("COMPLETED")}


async def _until_ended(server: Server, key: str, workflow_id: str, ids: list[str]) -> list[str]:
    statuses = []
    for run_id in ids:
        while True:
            run = await server.call(key, "GET", f"/workflows/{workflow_id}/runs/{run_id}")
            if run["ended_at"] is not None:
                break
            await asyncio.sleep(0.02)
        statuses.append(str(run["status"]))
    return statuses


async def memory(early: int, late: int) -> dict[str, Any]:
    """Return the server's memory after ``early`` and after ``late`` light runs, in MiB."""
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name)) as server:
            key = await server.app("Bench")
            made = await server.deploy(key, light())
            body = json.dumps(LIGHT_INPUT).encode()
            data = request("POST", f"/apps/c/workflows/{made}/runs", key, body)
            done = 0
            found: dict[str, Any] = {}
            for wanted in (early, late):
                while done < wanted:
                    driven = await drive_apart(server.port, data, 32, 0, 5)
                    done += int(driven["rate"] * 5)
                found[f"mib_after_{wanted}"] = server.rss()
            found["growth_mib"] = found[f"mib_after_{late}"] - found[f"mib_after_{early}"]
            return found


async def _main() -> dict[str, Any]:
    return {
        "first_run_seconds": await first_run(),
        "recovery": await recovery(),
        "memory": await memory(2_000, 8_000),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main()), indent=1))
