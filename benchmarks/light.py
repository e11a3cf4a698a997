"""Light runs over HTTP: alone, at 32 callers, each further step, and the memory they leave."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.client import request
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving

CALLERS = 32


def chain(length: int) -> dict[str, Any]:
    """Return the light workflow with more steps behind it, ``length`` in all."""
    workflow = light()
    steps = workflow["steps"]
    while len(steps) < length:
        before = steps[-1]["key"]
        key = f"more{len(steps)}"
        steps[-1]["destinations"] = [key]
        steps.append({"type": "code", "key": key, "code": f"return {before}.output"})
    return workflow | {"name": f"Chain of {length}", "key": f"chain{length}"}


async def measure(seconds: float, warm_up: float = 2.0) -> dict[str, Any]:
    """Return the figures of light runs, alone and at 32 callers, and of a trivial route."""
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name)) as server:
            return await _measure(server, seconds, warm_up)


async def _measure(server: Server, seconds: float, warm_up: float) -> dict[str, Any]:
    key = await server.app("Bench")
    short = await _run_request(server, key, light())
    long = await _run_request(server, key, chain(13))
    nothing = request("GET", "/healthz", key)
    found: dict[str, Any] = {"idle_mib": server.rss()}
    found["route"] = await drive_apart(server.port, nothing, CALLERS, 0.5, seconds / 2)
    found["alone"] = await drive_apart(server.port, short, 1, warm_up, seconds)
    before = server.cpu()
    found["callers"] = await drive_apart(server.port, short, CALLERS, warm_up, seconds)
    runs = found["callers"]["rate"] * (seconds + warm_up)
    found["cpu_ms_a_run"] = (server.cpu() - before) / runs * 1000
    found["long"] = await drive_apart(server.port, long, 1, warm_up / 2, seconds / 2)
    found["step_ms"] = (found["long"]["p50_ms"] - found["alone"]["p50_ms"]) / 10
    return found


async def _run_request(server: Server, key: str, workflow: dict[str, Any]) -> bytes:
    made = await server.deploy(key, workflow)
    body = json.dumps(LIGHT_INPUT).encode()
    return request("POST", f"/apps/c/workflows/{made}/runs", key, body)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(json.dumps(asyncio.run(measure(seconds)), indent=1))
