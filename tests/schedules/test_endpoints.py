"""Schedules over HTTP: made, listed, changed, deleted, refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import Platform, code, open_platform

from insula.kit.clock import iso

from .stage import HOUR, Clock


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    """On one database: what they say here does not depend on it."""
    async with open_platform(tmp_path) as opened:
        yield opened


async def flow_of(platform: Platform) -> str:
    return await platform.acme.make(
        {"type": "input", "key": "i", "input": {"n": {"type": "number"}}, "destinations": ["a"]},
        code("a", "return 1"),
    )


async def test_one_is_made_read_listed_changed_and_deleted(platform: Platform) -> None:
    acme, flow = platform.acme, await flow_of(platform)
    body = {"workflow_id": flow, "cron": "0  7 * * 1-5", "timezone": "Europe/Berlin"}
    made = await acme.ok("POST", "/schedules", {**body, "input": {"n": 1}})
    assert made["id"].startswith("sched_")
    assert (made["cron"], made["missed"], made["enabled"]) == ("0 7 * * 1-5", "once", True)
    assert made["next_at"] is not None
    assert (made["runs_count"], made["step_key"], made["last_at"]) == (0, None, None)
    path = f"/schedules/{made['id']}"
    assert await acme.ok("GET", path) == made
    listed = await acme.ask("GET", "/schedules")
    assert listed.json() == [made]
    assert listed.headers["pagination-count"] == "1"
    assert await acme.ok("GET", "/schedules", params={"workflow_id": "work_other"}) == []
    off = await acme.ok("PATCH", path, {"enabled": False})
    assert (off["next_at"], off["enabled"], off["cron"]) == (None, False, made["cron"])
    every = await acme.ok("PATCH", path, {"every": 3600, "enabled": True, "input": {"n": 2}})
    assert (every["cron"], every["every"], every["input"]) == (None, 3600, {"n": 2})
    assert every["next_at"] is not None
    assert await acme.ok("DELETE", path) is None
    assert (await acme.ask("GET", path)).status_code == 404


async def test_lists_go_on_by_cursor(platform: Platform) -> None:
    acme, flow = platform.acme, await flow_of(platform)
    made = []
    for _ in range(5):
        body = {"workflow_id": flow, "every": 600, "input": {"n": 1}}
        made.append((await acme.ok("POST", "/schedules", body))["id"])
    seen, following = [], None
    while True:
        query = {"take": 2} | ({"next": following} if following else {})
        answer = await acme.ask("GET", "/schedules", params=query)
        seen += [each["id"] for each in answer.json()]
        following = answer.headers.get("pagination-next")
        if following is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "cron"),
        ({"cron": "@daily", "every": 60}, "every"),
        ({"cron": "* * * * * *"}, "cron"),
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"cron": "@daily", "timezone": "Nowhere"}, "timezone"),
        ({"every": 9}, "every"),
        ({"every": 10**20}, "every"),
        ({"every": 60.5}, "every"),
        ({"at": "soon"}, "at"),
        ({"at": "2020-01-01T00:00:00Z"}, "at"),
        ({"at": "9999-12-31T23:59:59-12:00"}, "at"),
        ({"at": "9999-12-31T23:59:59", "timezone": "America/New_York"}, "at"),
        ({"every": 60, "missed": "never"}, "missed"),
        ({"every": 60, "input": {"n": "x"}}, "n"),
        ({"every": 60, "input": {}}, "n"),
        ({"every": 60, "input": {"n": 1, "x": "x" * 300_000}}, "input"),
        ({"every": 60, "input": {"n": 1}, "from_step_key": "none"}, "from_step_key"),
    ],
)
async def test_what_cannot_be_used_is_refused(
    platform: Platform, body: dict[str, Any], path: str
) -> None:
    flow = await flow_of(platform)
    answer = await platform.acme.ask("POST", "/schedules", {"workflow_id": flow, **body})
    assert answer.status_code == 400, answer.text
    assert path in [each["path"][-1] for each in answer.json()["errors"]]
    assert await platform.acme.ok("GET", "/schedules") == []


async def test_what_cannot_run_now_is_not_scheduled(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/workflows", {"name": "W", "steps": [code("a", "return 1")]})
    body = {"workflow_id": made["id"], "every": 60}
    answer = await acme.ask("POST", "/schedules", body)
    assert answer.status_code == 400
    assert "deploy" in answer.json()["message"]
    draft = await acme.ok("POST", "/schedules", {**body, "workflow_version_id": "draft"})
    assert draft["workflow_version_id"] == "draft"
    await acme.ok("PATCH", f"/workflows/{made['id']}", {"enabled": False})
    body["workflow_version_id"] = "draft"
    assert (await acme.ask("POST", "/schedules", body)).status_code == 409


async def test_a_form_will_do(platform: Platform) -> None:
    flow = await flow_of(platform)
    fields = {"workflow_id": flow, "every": "60", "input": '{"n": 1}', "enabled": "false"}
    parts = {name: (None, value) for name, value in fields.items()}
    made = await platform.acme.ok("POST", "/schedules", files=parts)
    assert (made["every"], made["input"], made["enabled"]) == (60, {"n": 1}, False)


async def test_the_same_key_makes_one(platform: Platform) -> None:
    flow = await flow_of(platform)
    body = {"workflow_id": flow, "every": 60, "input": {"n": 1}}
    headers = {"idempotency-key": "one"}
    first = await platform.acme.ok("POST", "/schedules", body, headers=headers)
    assert await platform.acme.ok("POST", "/schedules", body, headers=headers) == first
    other = await platform.acme.ask("POST", "/schedules", {**body, "every": 70}, headers=headers)
    assert other.status_code == 422


async def test_the_same_key_finds_one_whose_time_has_passed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, clock = await flow_of(platform), Clock(monkeypatch)
    body = {"workflow_id": flow, "at": iso(clock.now + HOUR), "input": {"n": 1}}
    headers = {"idempotency-key": "one"}
    first = await platform.acme.ok("POST", "/schedules", body, headers=headers)
    clock.step(2 * HOUR)
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"enabled": False})
    assert (await platform.acme.ask("POST", "/schedules", body)).status_code in (400, 409)
    again = await platform.acme.ok("POST", "/schedules", body, headers=headers)
    assert again["id"] == first["id"]
    await platform.acme.ok("DELETE", f"/schedules/{first['id']}")
    gone = await platform.acme.ask("POST", "/schedules", body, headers=headers)
    assert (gone.status_code, "Idempotency-Key" in gone.json()["message"]) == (409, True)


async def test_one_that_is_switched_on_again_counts_from_then(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, flow, clock = platform.acme, await flow_of(platform), Clock(monkeypatch)
    body = {"workflow_id": flow, "every": 3600, "input": {"n": 1}}
    path = "/schedules/" + (await acme.ok("POST", "/schedules", body))["id"]
    await acme.ok("PATCH", path, {"enabled": False})
    clock.step(HOUR // 2)
    before = iso(clock.now + HOUR)
    on = await acme.ok("PATCH", path, {"enabled": True})
    assert before <= on["next_at"] <= iso(clock.now + HOUR)
    # What is on already goes on counting as it did.
    clock.step(HOUR // 4)
    same = await acme.ok("PATCH", path, {"enabled": True, "missed": "skip"})
    assert same["next_at"] == on["next_at"]


async def test_other_apps_see_nothing(platform: Platform) -> None:
    flow = await flow_of(platform)
    body = {"workflow_id": flow, "every": 60, "input": {"n": 1}}
    made = await platform.acme.ok("POST", "/schedules", body)
    path = f"/schedules/{made['id']}"
    globex = platform.globex
    assert (await globex.ask("POST", "/schedules", body)).status_code == 404
    assert await globex.ok("GET", "/schedules") == []
    answers = [
        await globex.ask("GET", path),
        await globex.ask("PATCH", path, {"enabled": False}),
        await globex.ask("DELETE", path),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert await platform.acme.ok("GET", path) == made


async def test_an_app_has_so_many_at_most(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.schedules.limit.SCHEDULES_MAX", 1)
    flow = await flow_of(platform)
    body = {"workflow_id": flow, "every": 60, "input": {"n": 1}}
    await platform.acme.ok("POST", "/schedules", body)
    answer = await platform.acme.ask("POST", "/schedules", body)
    assert answer.status_code == 409
    assert "at most 1 schedules" in answer.json()["message"]
