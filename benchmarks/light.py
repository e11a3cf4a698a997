"""Light runs over HTTP: alone, at 16 and 32 callers, each further step, and the memory they leave.

    python benchmarks/light.py [SECONDS] [sqlite|postgresql|both]

``both`` measures in turns, several times: the speed of a machine drifts, a ratio does not.
"""

import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.client import request
from benchmarks.databases import KINDS, Kind, database
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving

CALLERS = 32
SOME_CALLERS = 16


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


async def measure(seconds: float, warm_up: float = 2.0, kind: Kind = "sqlite") -> dict[str, Any]:
    """Return the figures of light runs, alone and at 32 callers, and of a trivial route."""
    with tempfile.TemporaryDirectory() as name:
        async with database(kind) as settings, serving(Path(name), **settings) as server:
            return await _measure(server, seconds, warm_up)


async def compare(seconds: float, turns: int = 3) -> dict[str, dict[str, float]]:
    """Return what light runs take on each database, alone and at some callers, both measured in
    turns: of every figure the best one, for it is disturbed the least."""
    found: dict[str, dict[str, float]] = {}
    async with AsyncExitStack() as stack:
        driven = []
        for kind in KINDS:
            settings = await stack.enter_async_context(database(kind))
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            server = await stack.enter_async_context(serving(Path(folder), **settings))
            data = await _run_request(server, await server.app("Bench"), light())
            await drive_apart(server.port, data, SOME_CALLERS, 0, seconds)
            driven.append((kind, server, data))
        for _ in range(turns):
            for kind, server, data in driven:
                before = server.cpu()
                alone = await drive_apart(server.port, data, 1, 0.2, seconds)
                many = await drive_apart(server.port, data, SOME_CALLERS, 0.2, seconds)
                runs = (alone["rate"] + many["rate"]) * (seconds + 0.2)
                figures = {
                    "alone_p50_ms": alone["p50_ms"],
                    "alone_p99_ms": alone["p99_ms"],
                    "core_ms": (server.cpu() - before) / runs * 1000,
                    "p50_ms": many["p50_ms"],
                    "p99_ms": many["p99_ms"],
                    "rate": many["rate"],
                }
                best = found.setdefault(kind, figures)
                for name, value in figures.items():
                    best[name] = (max if name == "rate" else min)(best[name], value)
    return found


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


async def _main(seconds: float, kind: str) -> dict[str, Any]:
    if kind == "both":
        return await compare(seconds)
    return await measure(seconds, kind="postgresql" if kind == "postgresql" else "sqlite")


if __name__ == "__main__":
    asked = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    which = sys.argv[2] if len(sys.argv) > 2 else "sqlite"
    print(json.dumps(asyncio.run(_main(asked, which)), indent=1))
