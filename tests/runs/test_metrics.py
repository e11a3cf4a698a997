"""The figures of runs, and when the server is ready."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.runs.platform import Platform, child, code, open_platform

from insula.errors import Unavailable
from insula.journal import lease
from insula.runs.erasing import erase_due


async def figures(platform: Platform) -> dict[str, float]:
    answer = await platform.client.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f":{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_what_is_erased_is_counted_however_it_goes(platform: Platform) -> None:
    inner = await platform.acme.publish(code("a", "return 1"))
    flow = await platform.acme.make(child("below", inner))
    await platform.acme.run(flow, retention=0)  # with the run below it
    path = f"/workflows/{inner}/runs"
    patched = await platform.acme.run(inner)
    await platform.acme.ok("PATCH", f"{path}/{patched['id']}/retention", {"retention": 0})
    deleted = await platform.acme.run(inner)
    await platform.acme.ok("DELETE", f"{path}/{deleted['id']}")
    await platform.acme.ok("DELETE", f"{path}/{deleted['id']}")
    due = await platform.acme.run(inner)
    await platform.change("UPDATE runs SET retention_due_at = 1 WHERE id = :id", id=due["id"])
    await erase_due(platform.services)
    assert (await figures(platform))["insula_runs_erased_total"] == 5
    assert platform.services.metrics.erased_lately.a_second() == pytest.approx(5 / 60)


async def test_runs_are_counted(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    await platform.acme.run(flow)
    slow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(slow, background=True)
    await platform.reached("g")
    shown = await figures(platform)
    assert shown["insula_runs_live"] == 1
    assert shown["insula_runs_queued"] == 0
    assert shown["insula_runs_started_total"] == 2
    assert shown["insula_runs_ended_total:COMPLETED"] == 1
    assert shown["insula_sandbox_workers"] == 1
    await platform.acme.ok("POST", f"/workflows/{slow}/runs/{run['id']}/cancel")
    await platform.acme.ok("POST", f"/workflows/{slow}/runs/{run['id']}/cancel")
    shown = await figures(platform)
    assert shown["insula_runs_ended_total:CANCELLED"] == 1
    assert shown["insula_run_cancel_seconds_count"] == 1
    assert shown["insula_runs_live"] == 0


async def test_the_server_says_what_is_not_ready(platform: Platform) -> None:
    answer = await platform.client.get("/readyz")
    assert answer.status_code == 200
    asked = set(answer.json()["checks"]) - {"signals"}  # which are a cluster's alone
    assert asked == {"runs", "database", "sandbox", "queue"}
    platform.sandbox.alive = 0
    platform.sweeper.swept_at -= 60
    answer = await platform.client.get("/readyz")
    assert answer.status_code == 503
    assert {entry["path"][0] for entry in answer.json()["errors"]} == {"sandbox", "queue"}


async def test_a_server_that_can_store_nothing_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.01)
    full = True

    async with open_platform(tmp_path) as platform:
        beside = platform.services.database.autocommit

        async def store(unit: Any) -> Any:
            if full:
                raise Unavailable("The disk is full.")
            return await beside(unit)

        monkeypatch.setattr(platform.services.database, "autocommit", store)

        async def ready(status: int) -> str:
            async with asyncio.timeout(10):
                answer = await platform.client.get("/readyz")
                while answer.status_code != status:
                    await asyncio.sleep(0.01)
                    answer = await platform.client.get("/readyz")
            return answer.text

        assert "nothing can be stored now" in await ready(503)
        full = False
        await ready(200)
