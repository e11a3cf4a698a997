"""Deleting: what runs is stopped first, in order, and nothing is half gone if it cannot be."""

import pytest
from sqlalchemy import select
from tests.workflows.platform import Platform

from insula.errors import Conflict, NotFound, Unavailable
from insula.storage import tables
from insula.workflows.remove import remove, remove_all

DATABASES = ("sqlite", "postgres")


async def test_hooks_run_in_order_and_nothing_starts_meanwhile(platform: Platform) -> None:
    made = await platform.acme.publish()
    resolver, acme = platform.resolver, platform.acme.id
    told: list[str] = []

    async def first(app_id: str, workflow_id: str) -> None:
        told.append("first")
        with pytest.raises(Conflict):
            await resolver.resolve(app_id, workflow_id)
        await platform.acme.get(f"/workflows/{workflow_id}")  # it is still there

    async def second(app_id: str, workflow_id: str) -> None:
        told.append("second")

    removing = remove(platform.database, resolver, [first, second], acme, made["id"])
    await resolver.apply(made["id"], removing)
    assert told == ["first", "second"]
    with pytest.raises(NotFound):
        await resolver.resolve(acme, made["id"])


async def test_what_does_not_stop_keeps_its_workflow(platform: Platform) -> None:
    made = await platform.acme.publish()
    resolver = platform.resolver

    async def fails(app_id: str, workflow_id: str) -> None:
        raise Unavailable("It does not stop", retry_after=1)

    with pytest.raises(Unavailable):
        await resolver.apply(
            made["id"],
            remove(platform.database, resolver, [fails], platform.acme.id, made["id"]),
        )
    assert await platform.acme.get(f"/workflows/{made['id']}") == made
    assert (await resolver.resolve(platform.globex.id, made["id"], None, True)).version == 1


async def test_the_draft_leaves_the_database_and_the_versions_stay(platform: Platform) -> None:
    made = await platform.acme.publish()
    await platform.acme.patch(made["id"], input_default={"private": "only in the draft"})
    await platform.acme.ask("DELETE", f"/workflows/{made['id']}")
    body = await platform.database.read(
        lambda c: c.scalar(
            select(tables.workflows.c.body).where(tables.workflows.c.id == made["id"])
        )
    )
    assert b"private" not in body
    version = made["version"]["id"]
    seen = await platform.resolver.versions_for_runs([version], platform.globex.id)
    assert b"return 1 + 1" in bytes(seen[version])


async def test_all_workflows_of_an_app_go_and_no_others(platform: Platform) -> None:
    for _ in range(3):
        await platform.acme.publish()
    kept = await platform.globex.publish()
    await remove_all(platform.database, platform.resolver, [], platform.acme.id)
    assert await platform.acme.get("/workflows") == []
    found = await platform.initech.ask("GET", "/workflows/discover")
    assert [each["id"] for each in found.json()] == [kept["id"]]
    assert found.headers["pagination-count"] == "1"
