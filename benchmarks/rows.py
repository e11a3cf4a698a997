"""What is printed: a claim a row, beside its budget."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One claim: what was measured, its budget, and the ratio to a floor of the same run."""

    what: str
    value: float
    unit: str
    budget: str
    met: bool | None
    floor: str = ""
    ratio: float | None = None


def stored_rows(found: dict[str, Any], on: str = "") -> list[Row]:
    """Return what many stored runs cost; ``on`` names the database."""
    rate, ratio = found["erase"]["rate_beside"], found["erase"]["live_p99_ratio"]
    rows = []
    for name, pages in found["lists"].items():
        label = f"list of 20 runs {name}, {found['stored']:,} stored{on}"
        rows.append(Row(f"{label}, p50", pages["p50_ms"], "ms", "<= 10", pages["p50_ms"] <= 10))
        rows.append(Row(f"{label}, p95", pages["p95_ms"], "ms", "", None))
    label = f"live p99 beside erasing, to without{on}"
    return [
        *rows,
        Row(f"erasing{on}", rate, "runs/s", ">= 10000", rate >= 10_000),
        Row(label, ratio, "x", "<= 1.5", ratio <= 1.5),
    ]
