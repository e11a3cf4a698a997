"""What is due, and when: by day, bounded, each app's own."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import Platform, code, open_platform

from insula.kit.clock import DAY_MS, iso, now_ms
from insula.runs import due
from insula.runs.erasing import erase_due


@pytest.fixture(params=["sqlite", "postgres"])
async def platform(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    given = {}
    if request.param == "postgres":
        given["database_url"] = request.getfixturevalue("tables_url")
    async with open_platform(tmp_path, **given) as opened:
        yield opened


async def status(platform: Platform) -> Any:
    return await platform.acme.ok("GET", "/retention")


async def test_by_day(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    runs = [await platform.acme.run(flow, retention=-1) for _ in range(5)]
    await platform.globex.discover(flow, retention=DAY_MS / 1000)
    empty = await status(platform)
    assert (empty["due"], empty["oldest_due_at"]) == ({"count": 0, "capped": False}, None)
    assert [day["count"] for day in empty["days"]] == [0] * 30
    tomorrow = (now_ms() // DAY_MS + 1) * DAY_MS
    whens = [tomorrow, tomorrow + DAY_MS - 1, tomorrow + DAY_MS, tomorrow + 28 * DAY_MS]
    for run, when in zip(runs, [*whens, tomorrow + 29 * DAY_MS], strict=True):
        await platform.change(
            "UPDATE runs SET retention_due_at = :at WHERE id = :id", at=when, id=run["id"]
        )
    found = await status(platform)
    told = {day["date"]: day["count"] for day in found["days"] if day["count"]}
    assert told == {
        iso(tomorrow)[:10]: 2,
        iso(tomorrow + DAY_MS)[:10]: 1,
        iso(tomorrow + 28 * DAY_MS)[:10]: 1,
    }
    monkeypatch.setattr(due, "COUNTED_MAX", 1)
    capped = [day for day in (await status(platform))["days"] if day["capped"]]
    assert iso(tomorrow)[:10] in {day["date"] for day in capped}
    assert all(day["count"] <= 1 for day in capped)


async def test_what_is_due_goes_and_is_told(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    for _ in range(3):
        await platform.acme.run(flow, retention=-1)
    # A child whose root is live waits for it; so do these, for the eraser not to come before us.
    await platform.change("UPDATE runs SET retention_due_at = 1000, depth = 1, root_id = 'gone'")
    await platform.change("UPDATE runs SET ended_at = NULL")
    found = await status(platform)
    assert found["due"] == {"count": 3, "capped": False}
    assert found["oldest_due_at"] == "1970-01-01T00:00:01.000Z"
    await platform.change("UPDATE runs SET ended_at = 1000")
    await erase_due(platform.services)
    found = await status(platform)
    assert found["due"]["count"] == 0
    assert found["erased_per_second"] > 0
    assert await platform.rows("SELECT run_id FROM run_data") == []
