"""Schedules that come from workflows: they follow what is deployed."""

from typing import Any

import pytest
from tests.runs.platform import Platform, code
from tests.schedules.stage import HOUR, Clock, ended, look, trigger


async def listed(platform: Platform) -> list[Any]:
    found = await platform.acme.ok("GET", "/schedules")
    return sorted(found, key=lambda each: str(each["step_key"]))


async def change(platform: Platform, flow: str, *steps: Any) -> None:
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"steps": list(steps)})


async def deploy(platform: Platform, flow: str) -> Any:
    return await platform.acme.ok("POST", f"/workflows/{flow}/versions", {})


async def test_a_deploy_schedules_and_the_run_begins_at_the_step(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    flow = await platform.acme.make(
        {"type": "input", "key": "i", "input": {"n": {"type": "number"}}, "destinations": ["a"]},
        trigger("t", "3600", "a", timezone="Europe/Berlin"),
        code("a", "return t.output.missed"),
    )
    (schedule,) = await listed(platform)
    assert (schedule["step_key"], schedule["every"], schedule["cron"]) == ("t", 3600, None)
    assert schedule["timezone"] == "Europe/Berlin"
    clock.step(3 * HOUR + 10)
    await look(platform.services)
    (run,) = await ended(platform, platform.acme, 1)
    assert (run["status"], run["origin"], run["result"]) == ("COMPLETED", "TRIGGER", 2)
    assert list(run["output"]) == ["t", "a"]
    assert run["output"]["t"]["output"] == run["trigger"]
    by_hand = await platform.acme.run(flow, input={"n": 1})
    assert "t" not in by_hand["output"]
    again = await platform.acme.ok(
        "POST", f"/workflows/{flow}/runs/{run['id']}/replay", {"stepKey": "t"}
    )
    assert again["output"]["t"]["output"] == run["trigger"]


async def test_the_next_deploy_replaces_it(platform: Platform) -> None:
    one, two = trigger("t", "3600"), trigger("u", "0 7 * * *")
    flow = await platform.acme.make(one, two)
    first, second = await listed(platform)
    await change(platform, flow, one, two, code("a", "return 1"))
    assert await listed(platform) == [first, second]  # the draft schedules nothing
    version = await deploy(platform, flow)
    same, _ = await listed(platform)
    assert (same["id"], same["next_at"]) == (first["id"], first["next_at"])
    assert same["workflow_version_id"] == version["id"]
    await change(platform, flow, trigger("t", "7200"))
    await deploy(platform, flow)
    (changed,) = await listed(platform)
    assert (changed["every"], changed["id"]) == (7200, first["id"])
    assert changed["next_at"] > first["next_at"]
    await change(platform, flow, code("a", "return 1"))
    await deploy(platform, flow)
    assert await listed(platform) == []
    await platform.acme.ok("POST", f"/workflows/{flow}/rollback", {"version": 1})
    assert [each["step_key"] for each in await listed(platform)] == ["t", "u"]


async def test_disabling_removes_it_and_enabling_brings_it_back(platform: Platform) -> None:
    flow = await platform.acme.make(trigger("t", "3600"))
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"enabled": False})
    assert await listed(platform) == []
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"enabled": True})
    assert len(await listed(platform)) == 1


async def test_it_is_changed_through_its_workflow(platform: Platform) -> None:
    await platform.acme.make(trigger("t", "3600"))
    (schedule,) = await listed(platform)
    path = f"/schedules/{schedule['id']}"
    for method, body in (("PATCH", {"enabled": False}), ("DELETE", None)):
        answer = await platform.acme.ask(method, path, body)
        assert answer.status_code == 409
        assert "change the step" in answer.json()["message"]


async def test_what_cannot_be_used_is_saved_with_problems_and_not_deployed(
    platform: Platform,
) -> None:
    body = {"name": "W", "steps": [trigger("t", "61 * * * *", timezone="Nowhere")]}
    made = await platform.acme.ok("POST", "/workflows", body)
    (problem,) = made["problems"]
    assert problem["path"] == ["steps", "0", "service", "input", "timezone"]
    answer = await platform.acme.ask("POST", f"/workflows/{made['id']}/versions", {})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == problem["path"]
    assert await listed(platform) == []


async def test_an_app_s_limit_refuses_the_deploy(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.schedules.limit.SCHEDULES_MAX", 1)
    body = {"name": "W", "steps": [trigger("t", "3600"), trigger("u", "3600")]}
    made = await platform.acme.ok("POST", "/workflows", body)
    answer = await platform.acme.ask("POST", f"/workflows/{made['id']}/versions", {})
    assert answer.status_code == 409
    assert await listed(platform) == []
    assert (await platform.acme.ok("GET", f"/workflows/{made['id']}"))["version"] is None
