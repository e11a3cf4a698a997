"""Versions over HTTP: deployed once, numbered, never changed, returned to, withdrawn."""

from typing import Any

import pytest
from tests.contract import validate
from tests.workflows.platform import CODE, Platform

from insula.web.pagination import encode_cursor

DATABASES = ("sqlite", "postgres")

OTHER = {"type": "code", "key": "sum", "code": "return 3"}


async def test_a_deploy_makes_a_version_of_the_draft(platform: Platform) -> None:
    made = await platform.acme.make(input_default={"a": 1})
    version = await platform.acme.deploy(made["id"], notes="first", description="adds")
    validate(version, "WorkflowVersionSchema")
    assert (version["version"], version["notes"], version["description"]) == (1, "first", "adds")
    assert version["created_by"] == {"id": platform.acme.key_id, "name": "Acme's key"}
    assert "rollback_version" not in version
    assert (version["steps"], version["input_default"]) == ([CODE], {"a": 1})
    workflow = await platform.acme.get(f"/workflows/{made['id']}")
    assert workflow["version"] == version
    assert workflow["updated_at"] == made["updated_at"]


async def test_versions_never_change_and_are_found_by_every_name(platform: Platform) -> None:
    made = await platform.acme.make()
    path = f"/workflows/{made['id']}/versions"
    first = await platform.acme.deploy(made["id"])
    await platform.acme.patch(made["id"], steps=[OTHER])
    second = await platform.acme.deploy(made["id"])
    assert await platform.acme.get(path) == [second, first]
    assert await platform.acme.get(f"{path}/1") == first
    assert await platform.acme.get(f"{path}/{first['id']}") == first
    assert await platform.acme.get(f"{path}/latest") == second
    assert (await platform.acme.ask("GET", f"{path}/draft")).status_code == 400
    for nothing in ("3", "0", "-1", "workv_x", "99999999999", "newest"):
        assert (await platform.acme.ask("GET", f"{path}/{nothing}")).status_code == 404


async def test_the_same_body_again_needs_force(platform: Platform) -> None:
    made = await platform.acme.make()
    path = f"/workflows/{made['id']}/versions"
    await platform.acme.deploy(made["id"])
    answer = await platform.acme.ask("POST", path)
    assert answer.status_code == 409
    assert "force" in answer.json()["message"]
    assert (await platform.acme.deploy(made["id"], force=True))["version"] == 2


async def test_a_rollback_is_a_new_version_and_leaves_the_draft(platform: Platform) -> None:
    made = await platform.acme.make()
    await platform.acme.deploy(made["id"], description="adds")
    await platform.acme.patch(made["id"], steps=[OTHER])
    await platform.acme.deploy(made["id"])
    path = f"/workflows/{made['id']}/rollback"
    back = await platform.acme.ask("POST", path, {"version": 1, "notes": "oops"})
    version = back.json()
    validate(version, "WorkflowVersionSchema")
    assert (version["version"], version["rollback_version"], version["notes"]) == (3, 1, "oops")
    assert (version["steps"], version["description"]) == ([CODE], "adds")
    workflow = await platform.acme.get(f"/workflows/{made['id']}")
    assert (workflow["steps"], workflow["version"]) == ([OTHER], version)
    again = await platform.acme.ask("POST", path, {"version": 1})
    assert again.status_code == 409
    by_id = await platform.acme.ask("POST", path, {"version": version["id"], "force": True})
    assert by_id.json()["rollback_version"] == 3


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"version": "latest"}, 400),
        ({"version": "draft"}, 400),
        ({"version": None}, 400),
        ({"version": 9}, 404),
        ({"version": "workv_1"}, 404),
        ({"version": 10**30}, 404),
    ],
)
async def test_a_rollback_names_a_version(
    platform: Platform, body: dict[str, Any], status: int
) -> None:
    made = await platform.acme.make()
    await platform.acme.deploy(made["id"])
    answer = await platform.acme.ask("POST", f"/workflows/{made['id']}/rollback", body)
    assert answer.status_code == status


async def test_a_draft_with_problems_is_saved_and_not_deployed(platform: Platform) -> None:
    made = await platform.acme.make(steps=[{"type": "code", "key": "sum", "code": "return ("}])
    assert made["problems"][0]["path"][:2] == ["steps", "0"]
    answer = await platform.acme.ask("POST", f"/workflows/{made['id']}/versions")
    assert answer.status_code == 400
    error = answer.json()["errors"][0]
    assert error["path"] == made["problems"][0]["path"]
    assert await platform.acme.get(f"/workflows/{made['id']}/versions") == []


async def test_versions_are_walked_by_page_and_by_cursor(platform: Platform) -> None:
    made = await platform.acme.make()
    path = f"/workflows/{made['id']}/versions"
    for _ in range(5):
        await platform.acme.deploy(made["id"], force=True)
    pages = [await platform.acme.get(path, page=page, take=2) for page in (1, 2, 3, 4)]
    assert [[each["version"] for each in page] for page in pages] == [[5, 4], [3, 2], [1], []]
    numbers: list[int] = []
    query: dict[str, Any] = {"take": 2}
    while True:
        answer = await platform.acme.ask("GET", path, params=query)
        numbers += [each["version"] for each in answer.json()]
        assert answer.headers["pagination-count"] == "5"
        if "pagination-next" not in answer.headers:
            break
        query["next"] = answer.headers["pagination-next"]
    assert numbers == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("before", [-(2**63), -1, 0, 10**30, "1", None, True])
async def test_a_cursor_of_no_version_is_refused(platform: Platform, before: object) -> None:
    made = await platform.acme.make()
    await platform.acme.deploy(made["id"])
    query = {"next": encode_cursor({"before": before})}
    path = f"/workflows/{made['id']}/versions"
    answer = await platform.acme.ask("GET", path, params=query)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, ["next"])


async def test_the_last_public_version_cannot_be_withdrawn(platform: Platform) -> None:
    made = await platform.acme.publish()
    path = f"/workflows/{made['id']}/versions"
    last = await platform.acme.ask("PATCH", f"{path}/1", {"withdrawn": True})
    assert last.status_code == 409
    assert "withdrawn" not in await platform.acme.get(f"{path}/1")
    await platform.acme.deploy(made["id"], force=True)
    withdrawn = await platform.acme.ask("PATCH", f"{path}/2", {"withdrawn": True})
    assert withdrawn.json()["withdrawn"] is True
    seen = await platform.globex.get(f"/workflows/discover/{made['id']}")
    assert seen["version"]["version"] == 1
    shown = await platform.acme.ask("PATCH", f"{path}/latest", {"withdrawn": False})
    assert "withdrawn" not in shown.json()


async def test_a_withdrawn_or_missing_version_is_not_published(platform: Platform) -> None:
    made = await platform.acme.make()
    path = f"/workflows/{made['id']}"
    bare = await platform.acme.ask("PATCH", path, {"discoverable": True})
    assert (bare.status_code, "deploy" in bare.json()["message"]) == (409, True)
    await platform.acme.deploy(made["id"])
    await platform.acme.ask("PATCH", f"{path}/versions/1", {"withdrawn": True})
    answer = await platform.acme.ask("PATCH", path, {"discoverable": True})
    assert answer.status_code == 409
