"""The rows of PostgreSQL, beside those of SQLite measured in turns with them, and of two nodes."""

from collections.abc import Callable
from typing import Any

from benchmarks import cancel, cluster, journal_floor, light, records, stored
from benchmarks.rows import Row, stored_rows

ON = ", PostgreSQL"


async def measure_postgres(quick: bool, runs: int, say: Callable[[str], None]) -> list[Row]:
    """Measure all of it; ``quick`` takes fewer samples."""
    say("light runs on both databases …")
    rows = light_rows(await light.compare(1.0 if quick else 5.0, 2 if quick else 4))
    say("cancels on PostgreSQL …")
    kinds = "http" if quick else ""
    found = await cancel.measure(10 if quick else 100, kinds, "postgresql")
    rows += [_p99(f"cancel, {kind}{ON}, p99", figures, 50) for kind, figures in found.items()]
    say(f"{runs:,} stored runs on PostgreSQL …")
    rows += stored_rows(await stored.measure(runs, "postgresql"), ON)
    say(f"{runs:,} stored records on PostgreSQL …")
    rows += records.rows_of(await records.measure(runs, "postgresql"), ON)
    say("two nodes …")
    given = (1.0, 20, 5_000) if quick else (5.0, 200, 50_000)
    rows += cluster_rows(await cluster.measure(*given))
    floor = await journal_floor.measure_postgres()
    return rows + [Row(f"floor: {n}", value, "commits/s", "", None) for n, value in floor.items()]


def light_rows(found: dict[str, dict[str, float]]) -> list[Row]:
    """Return what light runs cost on one database and on the other."""
    one, other = found["sqlite"], found["postgresql"]
    more = other["alone_p50_ms"] - one["alone_p50_ms"]
    rows = [
        Row("light run alone, PostgreSQL beside SQLite, p50", more, "ms more", "<= 3", more <= 3)
    ]
    for name, unit in (("alone_p50_ms", "ms"), ("alone_p99_ms", "ms"), ("core_ms", "core-ms")):
        label = f"light run alone{ON}, {name.removeprefix('alone_').removesuffix('_ms')}"
        ratio = other[name] / one[name]
        rows.append(Row(label, other[name], unit, "", None, "SQLite in the same minutes", ratio))
    rate = other["rate"]
    label = f"light runs at {light.SOME_CALLERS} callers{ON}"
    floor, ratio = "SQLite in the same minutes", rate / one["rate"]
    return [*rows, Row(label, rate, "/s", ">= 500", rate >= 500, floor, ratio)]


def cluster_rows(found: dict[str, Any]) -> list[Row]:
    """Return what two nodes do."""
    one, two = found["light"]["one node"], found["light"]["two nodes"]
    back, erase = found["recovery"], found["erase"]
    ratio, floor = two["rate"] / one["rate"], "one node in the same minute"
    label = f"light runs at two nodes, {cluster.CALLERS} callers"
    return [
        Row(label, two["rate"], "/s", "", None, floor, ratio),
        Row(f"{label}, p50", two["p50_ms"], "ms", "", None, floor, two["p50_ms"] / one["p50_ms"]),
        Row(f"{label}, p99", two["p99_ms"], "ms", "", None, floor, two["p99_ms"] / one["p99_ms"]),
        _p99("cancel through the other node, p99", found["cancel"], 100),
        Row("runs go on elsewhere", back["seconds"], "s", "<= 10", back["seconds"] <= 10),
        Row("runs lost with a node", back["lost"], "", "0", back["lost"] == 0),
        Row("erasing by two nodes", erase["rate"], "runs/s", ">= 10000", erase["rate"] >= 10_000),
    ]


def _p99(label: str, figures: dict[str, float], budget: int) -> Row:
    took = figures["p99_ms"]
    return Row(label, took, "ms", f"<= {budget}", took <= budget)
