"""Print what the JavaScript sandbox costs by itself: evaluations, cancels, memory. Some seconds."""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.ports import Activity, Evaluation, Lane
from insula.kit.json import Raw

_SECONDS = 1.0
_CANCELS = 30


def _evaluation(lane: Lane, script: str = "return input.a + 1", app_id: str = "app") -> Evaluation:
    return Evaluation(app_id, (script,), {"input": Raw(b'{"a": 1}')}, lane=lane, waits=True)


async def _rate(pool: SandboxPool, lane: Lane, callers: int) -> dict[str, float]:
    times: list[float] = []
    until = time.perf_counter() + _SECONDS

    async def call(app_id: str) -> None:
        evaluation = _evaluation(lane, app_id=app_id)
        while (began := time.perf_counter()) < until:
            await pool.evaluate(evaluation, Activity("", 0))
            times.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for caller in range(callers):
            group.create_task(call(f"app_{caller % 2}"))
    return {"per second": len(times) / _SECONDS, **_spread(times)}


async def _cancels(pool: SandboxPool, lane: Lane) -> dict[str, dict[str, float]]:
    stopped, next_answer = [], []
    for _ in range(_CANCELS):
        task = asyncio.ensure_future(
            pool.evaluate(_evaluation(lane, "for (;;) {}"), Activity("", 0))
        )
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        task.cancel()
        await asyncio.wait([task])
        stopped.append(time.perf_counter() - began)
        await pool.evaluate(_evaluation(lane), Activity("", 0))
        next_answer.append(time.perf_counter() - began - stopped[-1])
    return {"cancel": _spread(stopped), "next answer": _spread(next_answer)}


def _spread(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {f"p{cut} ms": cuts[cut - 1] * 1000 for cut in (50, 95, 99)}


def _memory(pids: list[int]) -> float:
    """Return the proportional set size of processes in MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


async def measure(lanes: Sequence[Lane] = ("quickjs", "v8")) -> dict[str, dict[str, float]]:
    """Return rates a second and milliseconds, by lane and callers."""
    rows: dict[str, dict[str, float]] = {}
    began = time.perf_counter()
    pool = SandboxPool(maximum=12, warm=2)
    await pool.start()
    rows["start"] = {"ms": (time.perf_counter() - began) * 1000}
    try:
        await asyncio.sleep(0.2)
        idle = [worker.pid for worker in pool._workers]
        idle += [forker.pid for forker in pool._forkers.values()]
        rows["idle memory, 2 workers and zygote"] = {"MiB": _memory(idle)}
        for lane in lanes:
            for callers in (1, 2, 8):
                rows[f"{lane}, {callers} callers"] = await _rate(pool, lane, callers)
            for name, row in (await _cancels(pool, lane)).items():
                rows[f"{lane}, {name}"] = row
    finally:
        await pool.close()
    return rows


def main() -> None:
    """Measure and print, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--lane", choices=["quickjs", "v8"], action="append")
    given = parser.parse_args()
    rows = uvloop.run(measure(given.lane or ["quickjs", "v8"]))
    if given.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:36}", "  ".join(f"{key} {value:,.2f}" for key, value in row.items()))


if __name__ == "__main__":
    main()
