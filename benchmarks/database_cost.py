"""What a light run costs PostgreSQL: commits, rows, WAL, bytes kept, processor time; beside what
it costs the node. Prints JSON.

    python benchmarks/database_cost.py [SECONDS]
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.postgres import PostgresServer, binaries

from benchmarks.client import request
from benchmarks.server import LIGHT_INPUT, Server, drive_apart, light, serving

CALLERS = (1, 16)
_COUNTED = (
    "SELECT d.xact_commit, d.tup_inserted, d.tup_updated, d.tup_deleted,"
    " w.wal_records, w.wal_bytes, w.wal_sync, pg_database_size(d.datname)"
    " FROM pg_stat_database d, pg_stat_wal w WHERE d.datname = '{database}'"
)
_NAMES = ("commits", "inserted", "updated", "deleted", "wal_records", "wal_bytes", "fsyncs", "kept")
_SETTLED = 1.5  # the server counts what its sessions have done once a second


async def measure(seconds: float, settings: dict[str, str] | None = None) -> dict[str, Any]:
    """Return per number of callers the rate, latencies, and per run what the database did."""
    programs = binaries()
    if programs is None:
        raise RuntimeError("no PostgreSQL here")
    postgres = PostgresServer(programs)
    try:
        postgres.start()
        url = postgres.create()
        with tempfile.TemporaryDirectory() as name:
            async with serving(Path(name), database_url=url, **(settings or {})) as server:
                return await _measure(server, postgres, url.rpartition("/")[2], seconds)
    finally:
        postgres.close()


async def _measure(
    server: Server, postgres: PostgresServer, database: str, seconds: float
) -> dict[str, Any]:
    key = await server.app("Bench")
    made = await server.deploy(key, light())
    body = json.dumps(LIGHT_INPUT).encode()
    data = request("POST", f"/apps/c/workflows/{made}/runs", key, body)
    await drive_apart(server.port, data, 16, 0.0, 2.0)
    found = {}
    for callers in CALLERS:
        found[f"{callers} callers"] = await _drive(
            server, postgres, database, data, callers, seconds
        )
    return found


async def _drive(
    server: Server,
    postgres: PostgresServer,
    database: str,
    data: bytes,
    callers: int,
    seconds: float,
) -> dict[str, Any]:
    await asyncio.sleep(_SETTLED)
    before = await asyncio.to_thread(_counts, postgres, database)
    node, base = server.cpu(), _cpu(postgres)
    figures: dict[str, Any] = await drive_apart(server.port, data, callers, 0.0, seconds)
    runs = figures["rate"] * seconds
    figures["node_core_ms"] = (server.cpu() - node) / runs * 1000
    figures["postgres_core_ms"] = (_cpu(postgres) - base) / runs * 1000
    await asyncio.sleep(_SETTLED)
    after = await asyncio.to_thread(_counts, postgres, database)
    figures["a_run"] = {name: (after[name] - before[name]) / runs for name in _NAMES}
    return figures


def _counts(postgres: PostgresServer, database: str) -> dict[str, float]:
    (row,) = postgres.execute(_COUNTED.format(database=database), database)
    return {name: float(str(value)) for name, value in zip(_NAMES, row, strict=True)}


def _cpu(postgres: PostgresServer) -> float:
    """Return the CPU seconds of the server's processes that live, its sessions among them."""
    leader = int((postgres.folder / "data" / "postmaster.pid").read_text().split()[0])
    total = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == leader or int(entry) == leader:
                    total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    chosen = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(json.dumps(asyncio.run(measure(chosen)), indent=1))
