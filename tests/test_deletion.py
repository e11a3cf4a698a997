"""Deletions among several processes: what others are at stops, what they left is gone on with."""

import asyncio
from functools import partial
from pathlib import Path

from sqlalchemy import insert, select

from insula.apps import remove
from insula.cli.database.checks import COUNTED
from insula.kit.ids import new_id
from insula.runs.audit import audit
from insula.storage.tables import apps, metadata, runs, tags, workflows
from insula.workflows import remove as workflows_remove
from tests.runs.cluster_platform import open_nodes
from tests.runs.platform import ADMIN, Platform, code, open_platform

ELSEWHERE = {
    "blocked_callers": "found by its workflow, and removed with the app",
    "counters": "other names stand in that column, too; forgotten with the last run",
    "daily_totals": "usage, which stays",
    "extractions": "goes with its file",
    "versions": "goes with its workflow",
    "workflow_expectations": "goes with its workflow",
    "workflow_tests": "goes with its workflow",
}
"""Tables with a column of apps in which it is not looked for apps that are gone."""


async def _delete(platform: Platform, app_id: str) -> int:
    headers = {"authorization": f"Bearer {ADMIN}"}
    return (await platform.client.delete(f"/apps/{app_id}", headers=headers)).status_code


def test_every_table_of_apps_is_looked_at_for_what_comes_late() -> None:
    with_apps = {table.name for table in metadata.sorted_tables if "app_id" in table.c}
    assert with_apps - set(remove.TABLES) == ELSEWHERE.keys()


async def test_what_another_node_is_at_has_stopped_before_the_answer(
    tmp_path: Path, tables_url: str
) -> None:
    async with open_nodes(tmp_path, tables_url) as nodes:
        one, two = await nodes.open(), await nodes.open()
        workflow_id = await one.acme.publish(code("A", "wait(run)"))
        guests = await one.platform.globex.discover(workflow_id, background=True)
        waits = await one.acme.make(code("A", "wait(other)"))
        await one.acme.run(waits, background=True)
        step = {"step": {"type": "code", "key": "one", "code": "wait(step)"}}
        alone = asyncio.create_task(one.acme.ask("POST", "/runs/step", step))
        for gate in ("run", "other", "step"):
            await one.platform.reached(gate)
        assert await _delete(two.platform, one.acme.id) == 200
        assert len(one.services.live) == 0
        assert one.services.live.held(one.acme.id) == 0
        assert (await asyncio.wait_for(alone, 5)).status_code == 404
        theirs = f"/workflows/discover/{workflow_id}/runs/{guests['id']}"
        run = await one.platform.globex.ok("GET", theirs, params={"verbose": "all"})
        assert run["status"] == "CANCELLED"
        assert [each["key"] for each in run["cancellation"]["interrupted"]] == ["A"]
        assert (await one.acme.ask("GET", "/workflows")).status_code == 401


async def test_what_was_begun_and_what_came_late_is_removed_after_a_start(tmp_path: Path) -> None:
    async with open_platform(tmp_path) as platform:
        callers = (platform.acme, platform.globex)
        acme, globex = platform.acme, platform.globex
        half = await globex.make(code("A", "1"))
        left = await platform.caller("Left")
        await left.run(await left.make(code("A", "1")))
        assert await _delete(platform, acme.id) == 200
        late = {"id": new_id("tag"), "app_id": acme.id, "name": "late"}
        await platform.services.database.write(
            lambda c: c.execute(insert(tags).values(**late, created_at=1, updated_at=1)).rowcount
        )
        # As a process leaves it that dies after its first commit.
        begun = partial(workflows_remove._mark, app_id=globex.id, workflow_id=half)
        assert await platform.services.database.write(begun)
        await platform.change("UPDATE apps SET deleting = 1 WHERE id = :id", id=left.id)
    async with open_platform(tmp_path, callers) as platform:
        async with asyncio.timeout(20):
            while True:
                found = {
                    "tags": await platform.read(lambda c: c.scalars(select(tags.c.id)).all()),
                    "apps": await platform.read(lambda c: c.scalars(select(apps.c.id)).all()),
                    "runs": await platform.read(lambda c: c.scalars(select(runs.c.id)).all()),
                    "workflows": await platform.read(
                        lambda c: c.scalars(
                            select(workflows.c.id).where(workflows.c.stopping.is_(True))
                        ).all()
                    ),
                }
                if found == {"tags": [], "apps": [globex.id], "runs": [], "workflows": []}:
                    break
                await asyncio.sleep(0.05)
        findings = await platform.read(lambda c: list(audit(c, lambda check, seen: None, COUNTED)))
        assert [found for found in findings if found.wrong] == []


async def test_an_app_that_is_being_deleted_gets_no_key(tmp_path: Path) -> None:
    async with open_platform(tmp_path) as platform:
        await platform.change("UPDATE apps SET deleting = 1 WHERE id = :id", id=platform.acme.id)
        headers = {"authorization": f"Bearer {ADMIN}"}
        path = f"/apps/{platform.acme.id}/keys"
        answer = await platform.client.post(path, json={"name": "x"}, headers=headers)
        assert answer.status_code == 404
