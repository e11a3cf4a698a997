"""``make bench``: measures what we claim and prints it, as a table and as JSON.

Every figure stands beside its budget and beside a floor measured in the same run, because machines
differ and their speed drifts: the ratio to the floor is what can be compared.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import (
    cancel,
    journal_floor,
    lifetime,
    light,
    records,
    sandbox_floor,
    stored,
    stream,
)
from benchmarks.rows import Row, stored_rows
from benchmarks.rows_of_clusters import measure_postgres
from benchmarks.server import serving

_GOAL = 1_500


@dataclass(frozen=True)
class Floors:
    """What the parts can do by themselves, each per second."""

    evaluations: float
    commits: float
    rows: list[Row]


async def _floors() -> Floors:
    sandbox, journal = await sandbox_floor.measure(), await journal_floor.measure()
    rows = [
        Row(f"floor: sandbox, {name}, {figure}", value, "", "", None)
        for name, found in sandbox.items()
        for figure, value in found.items()
    ]
    rows += [Row(f"floor: {n}", value, "commits/s", "", None) for n, value in journal.items()]
    return Floors(sandbox["quickjs, 2 callers"]["per second"], journal["journal_full_64"], rows)


def _light_rows(found: dict[str, Any], floors: Floors) -> list[Row]:
    alone, many = found["alone"], found["callers"]
    route = found["route"]
    # One core each for a moment: an insert and an end in the journal, three evaluations, a request.
    floor_ms = 1000 / floors.commits + 3 * 1000 / floors.evaluations + 1000 / route["rate"]
    return [
        Row("light run alone, p50", alone["p50_ms"], "ms", "<= 5", alone["p50_ms"] <= 5),
        Row("light run alone, p95", alone["p95_ms"], "ms", "", None),
        Row("light run alone, p99", alone["p99_ms"], "ms", "", None),
        Row(
            f"light runs at {light.CALLERS} callers",
            many["rate"],
            "/s",
            f">= 1000 (goal {_GOAL})",
            many["rate"] >= 1000,
            "journal + 3 evaluations + route",
            many["rate"] * floor_ms / 1000,
        ),
        Row("light runs at 32 callers, p50", many["p50_ms"], "ms", "", None),
        Row("light runs at 32 callers, p95", many["p95_ms"], "ms", "", None),
        Row(
            "light runs at 32 callers, p99",
            many["p99_ms"],
            "ms",
            "<= 100",
            many["p99_ms"] <= 100,
        ),
        Row("processor time a light run", found["cpu_ms_a_run"], "core-ms", "", None,
            "sum of the floors", found["cpu_ms_a_run"] / floor_ms),
        Row("each further light step", found["step_ms"], "ms", "<= 1", found["step_ms"] <= 1,
            "one evaluation", found["step_ms"] * floors.evaluations / 1000),
        Row("memory, idle", found["idle_mib"], "MiB", "<= 200", found["idle_mib"] <= 200),
        Row("floor: trivial route at 32 callers", route["rate"], "/s", "", None),
    ]  # fmt: skip


def _stream_rows(found: dict[str, float]) -> list[Row]:
    return [
        Row("stream, added to a token, p50", found["p50_ms"], "ms", "<= 2", found["p50_ms"] <= 2),
        Row("stream, added to a token, p95", found["p95_ms"], "ms", "", None),
        Row("stream, added to a token, p99", found["p99_ms"], "ms", "<= 10", found["p99_ms"] <= 10),
    ]


def _cancel_rows(found: dict[str, Any]) -> list[Row]:
    rows = []
    for kind, figures in found.items():
        for name in ("p50_ms", "p95_ms", "p99_ms"):
            budget = "<= 50" if name == "p99_ms" else ""
            met = figures[name] <= 50 if budget else None
            label = f"cancel, {kind}, {name[:3]} of {figures['samples']}"
            rows.append(Row(label, figures[name], "ms", budget, met))
    return rows


def _life_rows(found: dict[str, Any]) -> list[Row]:
    first, back, memory = found["first_run_seconds"], found["recovery"], found["memory"]
    grown = memory["growth_mib"]
    return [
        Row("first run after the command", first, "s", "<= 10", first <= 10),
        Row("runs go on after kill -9", back["seconds"], "s", "<= 10", back["seconds"] <= 10),
        Row("runs lost by kill -9", back["lost"], "", "0", back["lost"] == 0),
        Row("memory grown over the runs", grown, "MiB", "<= 10", grown <= 10),
    ]


async def measure(quick: bool, runs: int) -> list[Row]:
    """Measure everything; ``quick`` takes fewer samples."""
    say = Console(stderr=True)
    rows: list[Row] = []

    say.print("floors …")
    floors = await _floors()
    say.print("light runs …")
    rows += _light_rows(await light.measure(2.0 if quick else 10.0, 1.0 if quick else 5.0), floors)
    say.print("streams …")
    rows += _stream_rows(await stream.measure(100 if quick else 500))
    say.print("cancels …")
    rows += _cancel_rows(await cancel.measure(10 if quick else 200))
    say.print("a server's life …")
    early, late = (1_000, 4_000) if quick else (20_000, 60_000)
    rows += _life_rows(
        {
            "first_run_seconds": await lifetime.first_run(),
            "recovery": await lifetime.recovery(),
            "memory": await lifetime.memory(early, late),
        }
    )
    say.print(f"{runs:,} stored runs …")
    rows += stored_rows(await stored.measure(runs))
    say.print(f"{runs:,} stored records …")
    rows += records.rows_of(await records.measure(runs))
    rows += await measure_postgres(quick, runs, say.print)
    return rows + floors.rows


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table(title="Insula, measured", caption=_machine())
    for column in ("what", "value", "unit", "budget", "met", "ratio", "to the floor"):
        table.add_column(column, justify="right" if column in ("value", "ratio") else "left")
    for row in rows:
        met = "" if row.met is None else ("yes" if row.met else "[bold red]no[/]")
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.what, f"{row.value:,.2f}", row.unit, row.budget, met, ratio, row.floor)
    Console(width=130).print(table)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {python}, {platform.system()}"


async def _check() -> None:
    """Fail early where no server can be started."""
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name)):
            return


def main() -> None:
    """Measure and print; the exit code does not judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples, about two minutes")
    parser.add_argument("--runs", type=int, default=None, help="stored runs (default 100,000)")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here as well")
    asked = parser.parse_args()
    runs = asked.runs or (10_000 if asked.quick else 100_000)
    uvloop.run(_check())
    rows = uvloop.run(measure(asked.quick, runs))
    show(rows)
    text = json.dumps({"machine": _machine(), "rows": [asdict(row) for row in rows]}, indent=1)
    if asked.json is not None:
        asked.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
