"""Deleting: nobody finds it any more, then what runs is stopped, whoever goes on with it."""

from collections.abc import Coroutine
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update
from tests.workflows.platform import Platform

from insula.errors import NotFound, Unavailable
from insula.storage import tables
from insula.workflows.remove import BeforeDelete, forget, go_on, remove, remove_all

DATABASES = ("sqlite", "postgres")


async def test_hooks_run_in_order_and_nothing_starts_meanwhile(platform: Platform) -> None:
    made = await platform.acme.publish()
    resolver, acme = platform.resolver, platform.acme.id
    told: list[str] = []

    async def first(app_id: str, workflow_id: str) -> None:
        told.append("first")
        with pytest.raises(NotFound):
            await resolver.resolve(app_id, workflow_id)
        assert not await resolver.admits(workflow_id)
        assert await platform.acme.get("/workflows") == []

    async def second(app_id: str, workflow_id: str) -> None:
        told.append("second")

    removing = remove(platform.database, resolver, [first, second], acme, made["id"])
    await resolver.apply(made["id"], removing)
    assert told == ["first", "second"]
    with pytest.raises(NotFound):
        await resolver.resolve(acme, made["id"])


async def test_what_does_not_stop_is_gone_on_with(platform: Platform) -> None:
    made = await platform.acme.publish()
    database, resolver, acme = platform.database, platform.resolver, platform.acme.id
    told: list[str] = []

    async def fails(app_id: str, workflow_id: str) -> None:
        raise Unavailable("It does not stop", retry_after=1)

    async def stops(app_id: str, workflow_id: str) -> None:
        told.append(workflow_id)

    def removing(hook: BeforeDelete) -> Coroutine[Any, Any, None]:
        return resolver.apply(made["id"], remove(database, resolver, [hook], acme, made["id"]))

    for _ in range(2):  # a second request joins in
        with pytest.raises(Unavailable):
            await removing(fails)
    with pytest.raises(NotFound):
        await resolver.resolve(platform.globex.id, made["id"], None, True)
    await go_on(database, resolver, [stops], stale_ms=60_000)
    assert told == []  # another node may be at it
    await go_on(database, resolver, [stops], stale_ms=0)
    await go_on(database, resolver, [stops], stale_ms=0)
    assert told == [made["id"]]
    with pytest.raises(NotFound):
        await removing(stops)


async def test_what_no_run_shows_is_forgotten(platform: Platform) -> None:
    kept = await platform.acme.publish()
    gone = [(await platform.acme.publish())["id"] for _ in range(3)]
    for workflow_id in gone:
        await platform.acme.ask("DELETE", f"/workflows/{workflow_id}")
    await forget(platform.database, at_once=2)
    for table, column in ((tables.versions, "workflow_id"), (tables.workflows, "id")):
        query = select(table.c[column])
        left = await platform.database.read(lambda c, query=query: c.scalars(query).all())
        assert left == [kept["id"]]


async def test_what_a_run_shows_stays_and_is_not_written_for(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, database = await platform.acme.publish(), platform.database
    await platform.acme.ask("DELETE", f"/workflows/{made['id']}")
    run = {"app_id": "app_1", "workflow_app_id": platform.acme.id, "workflow_id": made["id"]}
    run |= {"root_id": "run_1", "status": "COMPLETED", "origin": "API"}
    run |= {"created_at": 1, "updated_at": 1, "ended_at": 1}
    rows = [{**run, "id": "run_1", "erased_at": None}, {**run, "id": "run_2", "erased_at": 1}]

    def versions(connection: Connection) -> int:
        return connection.scalar(select(func.count()).select_from(tables.versions)) or 0

    await database.write(lambda c: c.execute(insert(tables.runs), rows) and None)
    await forget(database)
    assert await database.read(versions) == 1
    await database.write(lambda c: c.execute(update(tables.runs).values(erased_at=1)) and None)
    await forget(database)
    assert await database.read(versions) == 0
    monkeypatch.delattr(type(database), "write")  # there is nothing to do: the row is shown
    await forget(database)


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
