"""Many stored runs: how long a page of a list takes, and how fast what is due is erased."""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.client import percentile, request
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving
from insula.engine.events import RunEnded, RunStarted, StepEnded, StepStarted, encode_events
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs.rows import COLUMNS, RunRow

_BATCH = 5_000
_PAGES = 100
_LIVE_CALLERS = 1
"""Callers of light runs beside the erasing: one makes about 300 a second."""


def _row(app_id: str, workflow_id: str, version_id: str, due: int | None) -> RunRow:
    now = now_ms()
    run_id = new_id("run")
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values.update(
        id=run_id,
        app_id=app_id,
        workflow_app_id=app_id,
        workflow_id=workflow_id,
        version_id=version_id,
        version=1,
        root_id=run_id,
        depth=0,
        hidden=False,
        status="COMPLETED",
        origin="ENDPOINT",
        background=False,
        options=b"{}",
        seq=4,
        credits=0.0,
        retention_due_at=due,
        started_at=now,
        ended_at=now,
        created_at=now,
        updated_at=now,
    )
    return RunRow(**values)


def fill(path: Path, workflow_id: str, count: int, due: int | None) -> float:
    """Insert ended runs of about 4 KB each straight into the database; return the seconds."""
    output = Raw(json.dumps({"result": "x" * 2900}).encode())
    events = encode_events(
        [
            RunStarted(1),
            StepStarted(1, "third", "code", attempt=1),
            StepEnded(2, "third", "COMPLETED", output=output),
            RunEnded(2, "COMPLETED", result_key="third"),
        ]
    )
    journal, given = zlib.compress(events, 1), json.dumps({"text": "x" * 1000}).encode()
    began = time.perf_counter()
    with sqlite3.connect(path) as raw:
        app_id, version_id = raw.execute(
            "SELECT app_id, latest_version_id FROM workflows WHERE id = ?", (workflow_id,)
        ).fetchone()
        places = ", ".join("?" * len(COLUMNS))
        for start in range(0, count, _BATCH):
            rows = [
                _row(app_id, workflow_id, version_id, due)
                for _ in range(min(_BATCH, count - start))
            ]
            raw.executemany(f"INSERT INTO runs VALUES ({places})", (row.values() for row in rows))
            raw.executemany(
                "INSERT INTO run_data (run_id, input, events) VALUES (?, ?, ?)",
                ((row.id, given, journal) for row in rows),
            )
            raw.commit()
        raw.execute(
            "INSERT INTO counters (app_id, workflow_id, status, origin, slot, count) "
            "VALUES (?, ?, 'COMPLETED', 'ENDPOINT', 0, ?) "
            "ON CONFLICT DO UPDATE SET count = count + excluded.count",
            (app_id, workflow_id, count),
        )
    raw.close()
    return time.perf_counter() - began


async def measure(count: int) -> dict[str, Any]:
    """Return how long a page of 20 runs takes with ``count`` stored, and how fast they go."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with serving(folder) as server:
            key = await server.app("Bench")
            made = await server.deploy(key, light())
        fill(folder / "insula.db", made, count, None)
        async with serving(folder) as server:
            found: dict[str, Any] = {"stored": count, "list": await _pages(server, key, made)}
            data = request(
                "POST",
                f"/apps/c/workflows/{made}/runs",
                key,
                json.dumps({**LIGHT_INPUT, "retention": -1}).encode(),
            )
            before = await drive_apart(server.port, data, _LIVE_CALLERS, 0.5, 3)
        with sqlite3.connect(folder / "insula.db") as raw:
            raw.execute("UPDATE runs SET retention_due_at = 1 WHERE credits = 0 AND seq = 4")
        raw.close()
        found["erase"] = await _erase(folder, data, count, before)
    return found


async def _pages(server: Server, key: str, workflow_id: str) -> dict[str, float]:
    """Walk pages by cursor, and look at some by number."""
    headers = {"authorization": f"Bearer {key}"}
    took, following = [], None
    for _ in range(_PAGES):
        query = {"take": "20"} | ({"next": following} if following else {})
        began = time.perf_counter()
        path = f"/apps/c/workflows/{workflow_id}/runs"
        answer = await server.http.get(path, params=query, headers=headers)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200
        assert len(answer.json()) == 20
        following = answer.headers.get("pagination-next")
    took.sort()
    return {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99)}


async def _erase(
    folder: Path, data: bytes, count: int, before: dict[str, float]
) -> dict[str, float]:
    """Open the server on runs that are all due, and drive light runs beside the erasing."""
    async with serving(folder) as server:
        began = time.perf_counter()
        beside = asyncio.create_task(drive_apart(server.port, data, _LIVE_CALLERS, 0.2, 3))
        while _left(folder) > 0:  # noqa: ASYNC110  another process erases
            await asyncio.sleep(0.1)
        seconds = time.perf_counter() - began
        live = await beside
    return {
        "rate": count / seconds,
        "live_p99_ms": live["p99_ms"],
        "live_p99_ratio": live["p99_ms"] / before["p99_ms"],
    }


def _left(folder: Path) -> int:
    with sqlite3.connect(f"file:{folder / 'insula.db'}?mode=ro", uri=True) as raw:
        found = raw.execute(
            "SELECT EXISTS(SELECT 1 FROM runs WHERE erased_at IS NULL AND retention_due_at = 1)"
        ).fetchone()[0]
    raw.close()
    return int(found)


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(json.dumps(asyncio.run(measure(asked)), indent=1))
