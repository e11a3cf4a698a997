"""What an app finds of others' workflows: the deployed, published version, and no more."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.contract import validate
from tests.workflows.platform import CODE, Platform

from insula.catalogue.repository import discover, found_by
from insula.errors import BadInput
from insula.storage.tables import workflows
from insula.web.pagination import Page

OTHER = {"type": "code", "key": "sum", "code": "return 3"}


async def test_the_body_is_the_latest_deployed_versions(platform: Platform) -> None:
    made = await platform.acme.publish(description="adds", retention=60)
    deployed = made["version"]
    await platform.acme.patch(made["id"], steps=[OTHER])
    found = await platform.globex.get(f"/workflows/discover/{made['id']}")
    validate(found, "WorkflowSchema")
    assert "tests_stats" not in found
    assert found["steps"] == [CODE]
    assert found["updated_at"] == deployed["created_at"]
    assert found["app"] == {"id": platform.acme.id, "name": "Acme", "verified": False}
    assert found["version"] == {k: v for k, v in deployed.items() if k != "created_by"}
    assert await platform.globex.get("/workflows/discover") == [found]
    assert await platform.acme.get(f"/workflows/discover/{made['id']}") == found
    newer = await platform.acme.deploy(made["id"])
    found = await platform.initech.get(f"/workflows/discover/{made['id']}")
    assert (found["steps"], found["updated_at"]) == ([OTHER], newer["created_at"])


async def test_a_closed_workflow_shows_no_steps(platform: Platform) -> None:
    made = await platform.acme.publish(input={"a": {"type": "number"}})
    await platform.acme.patch(made["id"], open=False)
    path = f"/workflows/discover/{made['id']}"
    found = await platform.globex.get(path)
    version = await platform.globex.get(f"{path}/versions/latest")
    validate(found, "WorkflowSchema")
    validate(version, "WorkflowVersionSchema")
    for shown in (found, found["version"], version):
        assert shown["steps"] == []
        assert shown["input"] == {"a": {"type": "number"}}
    assert (await platform.globex.get("/workflows/discover"))[0]["version"]["steps"] == []


async def test_only_versions_since_publication_exist(platform: Platform) -> None:
    made = await platform.acme.make()
    for _ in range(2):
        await platform.acme.deploy(made["id"], force=True)
    await platform.acme.patch(made["id"], discoverable=True)
    await platform.acme.deploy(made["id"], force=True)
    path = f"/workflows/discover/{made['id']}/versions"
    shown = [(await platform.globex.ask("GET", f"{path}/{n}")).status_code for n in range(5)]
    assert shown == [404, 404, 200, 200, 404]
    second = await platform.globex.get(f"{path}/2")
    assert await platform.globex.get(f"{path}/{second['id']}") == second
    assert (await platform.globex.ask("GET", f"{path}/draft")).status_code == 400


async def test_publishing_again_begins_anew(platform: Platform) -> None:
    made = await platform.acme.publish()
    await platform.acme.patch(made["id"], discoverable=False)
    await platform.acme.deploy(made["id"], force=True)
    await platform.acme.deploy(made["id"], force=True)
    again = await platform.acme.patch(made["id"], discoverable=True)
    assert again["published_from_version"] == 3
    path = f"/workflows/discover/{made['id']}/versions"
    assert (await platform.globex.ask("GET", f"{path}/2")).status_code == 404
    assert (await platform.globex.get(f"{path}/latest"))["version"] == 3


async def test_the_list_is_searched_and_walked(platform: Platform) -> None:
    made = [
        (await app.publish(name=f"Sum {number}"))["id"]
        for number in range(3)
        for app in platform.apps
    ]
    ids: list[str] = []
    query: dict[str, Any] = {"take": 4}
    while True:
        answer = await platform.globex.ask("GET", "/workflows/discover", params=query)
        assert answer.headers["pagination-count"] == "9"
        ids += [each["id"] for each in answer.json()]
        if "pagination-next" not in answer.headers:
            break
        query["next"] = answer.headers["pagination-next"]
    assert ids == made[::-1]
    second = await platform.globex.get("/workflows/discover", take=4, page=2)
    assert [each["id"] for each in second] == ids[4:8]
    answer = await platform.globex.ask("GET", "/workflows/discover", params={"search": "sum 1"})
    assert answer.headers["pagination-count"] == "3"
    assert {each["name"] for each in answer.json()} == {"Sum 1"}
    assert await platform.globex.get("/workflows/discover", tags=["tag_1"]) == []


@pytest.mark.parametrize("cursor", [{}, {"before": 3}, {"before": None}, {"x": []}])
async def test_a_cursor_of_another_list_is_refused(
    platform: Platform, cursor: dict[str, Any]
) -> None:
    page = Page(1, 20, cursor)
    with pytest.raises(BadInput, match="not a cursor of this list"):
        await platform.database.read(lambda c: discover(c, platform.globex.id, None, [], page))


async def test_any_place_in_a_list_is_harmless(platform: Platform) -> None:
    await platform.acme.publish()
    page = Page(1, 20, {"before": "x"})
    await platform.database.read(lambda c: discover(c, platform.globex.id, None, [], page))


async def test_the_count_is_of_what_this_app_finds(platform: Platform) -> None:
    async def count(app: str) -> str:
        asking = {"globex": platform.globex, "initech": platform.initech}[app]
        answer = await asking.ask("GET", "/workflows/discover")
        assert answer.headers["pagination-count"] == str(len(answer.json()))
        return answer.headers["pagination-count"]

    one, two = await platform.acme.publish(), await platform.acme.publish()
    block = f"/workflows/{one['id']}/callers/{platform.globex.id}"
    await platform.acme.ask("PUT", block)
    await platform.acme.ask("PUT", block)
    assert (await count("globex"), await count("initech")) == ("1", "2")
    await platform.acme.patch(one["id"], discoverable=False)
    await platform.acme.patch(one["id"], discoverable=False)
    assert (await count("globex"), await count("initech")) == ("1", "1")
    await platform.acme.patch(one["id"], discoverable=True)
    assert (await count("globex"), await count("initech")) == ("1", "2")
    await platform.acme.ask("DELETE", block)
    await platform.acme.ask("DELETE", block)
    assert (await count("globex"), await count("initech")) == ("2", "2")
    await platform.acme.ask("PUT", block)
    await platform.acme.ask("DELETE", f"/workflows/{one['id']}")
    assert (await count("globex"), await count("initech")) == ("1", "1")
    await platform.acme.ask("DELETE", f"/workflows/{two['id']}")
    assert (await count("globex"), await count("initech")) == ("0", "0")


async def test_changes_that_overtake_each_other_count_once(platform: Platform) -> None:
    made = await platform.acme.make()
    await platform.acme.deploy(made["id"])
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(platform.acme.patch(made["id"], name=f"N{number}"))
            group.create_task(platform.acme.patch(made["id"], discoverable=True))
    answer = await platform.globex.ask("GET", "/workflows/discover")
    assert answer.headers["pagination-count"] == str(len(answer.json())) == "1"


async def test_the_list_uses_its_index(platform: Platform) -> None:
    """Published workflows among many others are found without looking at the others."""

    def plan(connection: Connection) -> str:
        query = found_by(platform.globex.id).order_by(workflows.c.id.desc()).limit(20)
        dialect = connection.dialect
        text = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
        return "\n".join(row.detail for row in rows)

    told = await platform.database.read(plan)
    assert "USING INDEX workflows_discoverable" in told
    assert "SEARCH versions USING INDEX versions_by_workflow" in told
    assert "SCAN versions" not in told
    assert "TEMP B-TREE" not in told
