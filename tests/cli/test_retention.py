"""``insula retention status``: numbers for people, JSON for scripts."""

import json
from typing import Any

from .conftest import Invoke
from .fake_server import Answer, FakeServer


def status(count: int, oldest: str | None, days: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "default_seconds": 60,
        "due": {"count": count, "capped": count == 10_000},
        "oldest_due_at": oldest,
        "days": days,
        "erased_per_second": 12.5,
    }


def test_status(server: FakeServer, invoke: Invoke) -> None:
    days = [
        {"date": "2026-01-31", "count": 0, "capped": False},
        {"date": "2026-02-01", "count": 7, "capped": False},
    ]
    found = status(10_000, "2026-01-30T00:00:00.000Z", days)
    server.on("GET", "/apps/c/retention", Answer(found))
    told = invoke("retention", "status").out
    assert "due now: at least 10000, the oldest since 2026-01-30" in told
    assert "12.5 runs/s" in told
    assert "2026-02-01" in told
    assert "2026-01-31" not in told
    assert json.loads(invoke("retention", "status", "--json").out) == found


def test_nothing(server: FakeServer, invoke: Invoke) -> None:
    server.on("GET", "/apps/c/retention", Answer(status(0, None, [])))
    outcome = invoke("retention", "status")
    assert "due now: 0\n" in outcome.out
    assert "Nothing falls due" in outcome.err
