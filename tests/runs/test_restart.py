"""A process goes on with what the one before it left: with all that its runs need around them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.postgres import PostgresServer
from tests.proxy import proxied
from tests.runs.platform import Caller, Platform, code, open_platform
from tests.runs.test_recovery import BEGUN, insert

from insula.journal import journal
from insula.kit import json

DATABASES = ("sqlite", "postgres")


async def ended(platform: Platform, run_id: str) -> Any:
    """Wait for the end of a run that the start has gone on with."""
    query = "SELECT status, error FROM runs WHERE id = :id AND ended_at IS NOT NULL"
    async with asyncio.timeout(20):
        while not (found := await platform.rows(query, id=run_id)):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    return found[0]


async def test_the_run_of_a_recorded_test_is_played_on(
    tmp_path: Path, database_url: str | None
) -> None:
    step = {"type": "http_request", "key": "web", "method": "GET", "url": "http://away.test/x"}
    async with open_platform(tmp_path, database_url=database_url) as platform:
        flow = await platform.acme.publish(step)
        ran = await platform.acme.run(flow)
        assert ran["status"] == "COMPLETED", ran
        test = await platform.acme.ok("POST", f"/runs/{ran['id']}/test", {})
        platform.services.draining = True  # it is left to the next one
        options = json.encode({"outfit": {"test": test["id"]}})
        run_id = await insert(platform, flow, BEGUN, origin="TEST", options=options)
        callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers, database_url=database_url) as platform:
        row = await ended(platform, run_id)
        assert (row.status, row.error) == ("COMPLETED", None)
        assert platform.http.requests == []


async def test_a_step_survives_any_number_of_stops(
    tmp_path: Path, database_url: str | None
) -> None:
    given: dict[str, Any] = {"database_url": database_url, "attempts_max": 2, "drain_seconds": 0}
    callers: tuple[Caller, ...] = ()
    path = ""
    for _ in range(3):
        async with open_platform(tmp_path, callers, **given) as platform:
            if not path:
                flow = await platform.acme.make(code("a", "wait(g)"))
                run = await platform.acme.run(flow, background=True)
                path = f"/workflows/{flow}/runs/{run['id']}"
            await platform.reached("g")
            callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers, **given) as platform:
        await platform.reached("g")
        platform.gate("g").opened.set()
        told = await platform.acme.stream(f"{path}/stream?from=0")
        assert told[-1].data["status"] == "COMPLETED"
        assert [event.id for event in told] == list(range(1, len(told) + 1))
        assert told[-1].data["output"]["a"]["attempts"] == 4


async def test_a_step_that_must_not_be_repeated_is_not_after_a_stop_either(tmp_path: Path) -> None:
    given: dict[str, Any] = {"drain_seconds": 0}
    async with open_platform(tmp_path, **given) as platform:
        flow = await platform.acme.make({**code("a", "wait(g)"), "on_interrupt": "fail"})
        run = await platform.acme.run(flow, background=True)
        await platform.reached("g")
        callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers, **given) as platform:
        row = await ended(platform, run["id"])
        assert row.status == "FAILED"
        assert "on_interrupt is fail" in row.error


async def test_webhooks_are_told_of_runs_that_end_while_it_starts(
    tmp_path: Path, database_url: str | None
) -> None:
    async with open_platform(tmp_path, database_url=database_url) as platform:
        flow = await platform.acme.publish(code("a", "return 1"))
        hook = {"url": "http://away.test/hook", "events": [], "run_events": ["run.completed"]}
        await platform.acme.ok("POST", "/webhooks", hook)
        platform.services.draining = True
        run_id = await insert(platform, flow, BEGUN)
        callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers, database_url=database_url) as platform:
        assert (await ended(platform, run_id)).status == "COMPLETED"
        told = await platform.rows("SELECT thing_id FROM deliveries")
        assert [each.thing_id for each in told] == [run_id]


async def test_it_stops_though_the_database_went_away_in_the_commit_of_an_end(
    tmp_path: Path,
    postgres_server: PostgresServer,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "_CLOSING_MAX", 0.1)
    async with proxied(postgres_server.port) as proxy, asyncio.timeout(60):
        through = postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        async with open_platform(tmp_path, database_url=through) as platform:
            platform.services.stop_within = 0.1
            flow = await platform.acme.make(code("a", "wait(g)"))
            run = await platform.acme.run(flow, background=True)
            await platform.reached("g")
            proxy.cut_at(b"COMMIT", "before")
            platform.gate("g").opened.set()
            await proxy.tripped.wait()
            await proxy.refuse()
            callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers, database_url=postgres_url) as platform:
        platform.gate("g").opened.set()
        assert (await ended(platform, run["id"])).status == "COMPLETED"


async def test_who_is_only_asked_leaves_to_a_server_what_others_left(
    tmp_path: Path, database_url: str | None
) -> None:
    async with open_platform(tmp_path, database_url=database_url) as platform:
        flow = await platform.acme.publish(code("a", "return 1"))
        due = await platform.acme.ok("POST", "/schedules", {"workflow_id": flow, "every": 3600})
        platform.services.draining = True
        interrupted = await insert(platform, flow, BEGUN)
        await platform.change("UPDATE schedules SET next_at = 1")
        callers = (platform.acme, platform.globex)
    async with open_platform(
        tmp_path, callers, only_asked=True, database_url=database_url
    ) as platform:
        assert (await platform.acme.run(flow))["status"] == "COMPLETED"
        waiting = await platform.acme.run(flow, background=True)
        assert waiting["status"] == "PENDING"
        mine = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{interrupted}")
        assert mine["status"] == "RUNNING"
        assert (await platform.rows("SELECT next_at FROM schedules"))[0][0] == 1
        stopped = await insert(platform, flow, BEGUN)
        path = f"/workflows/{flow}/runs/{stopped}/cancel"
        assert (await platform.acme.ok("POST", path))["status"] == "CANCELLED"
    async with open_platform(tmp_path, callers, database_url=database_url) as platform:
        assert (await ended(platform, interrupted)).status == "COMPLETED"
        assert (await ended(platform, waiting["id"])).status == "COMPLETED"
        fired = "SELECT id FROM schedules WHERE id = :id AND next_at > 1"
        async with asyncio.timeout(20):
            while not await platform.rows(fired, id=due["id"]):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
