"""Which version a caller may run: every rule, and a memory that never tells of the past."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection
from tests.workflows.platform import CODE, App, Platform

from insula.errors import BadInput, InsulaError, NotFound
from insula.kit.ids import new_id
from insula.kit.json import decode
from insula.workflows.resolve import Resolver, Runnable

T = TypeVar("T")
OTHER = {"type": "code", "key": "sum", "code": "return 3"}


async def run(
    app: App, workflow_id: str, selector: object = None, discover: bool = True
) -> Runnable:
    return await app.platform.resolver.resolve(app.id, workflow_id, selector, discover)


async def refused(
    app: App, workflow_id: str, selector: object = None, discover: bool = True
) -> str:
    try:
        await run(app, workflow_id, selector, discover)
    except InsulaError as error:
        return type(error).__name__
    return "allowed"


async def test_the_owner_runs_any_version_and_the_draft(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.make(retention=60)
    with pytest.raises(BadInput, match="deploy"):
        await run(acme, made["id"], None, discover=False)
    first = await acme.deploy(made["id"])
    await acme.patch(made["id"], steps=[OTHER], caller_limit=2)
    second = await acme.deploy(made["id"])
    for selector, version in [
        (None, second), ("latest", second), (1, first), ("1", first), (first["id"], first)
    ]:  # fmt: skip
        found = await run(acme, made["id"], selector, discover=False)
        assert (found.version_id, found.version) == (version["id"], version["version"])
        assert decode(found.body)["steps"] == version["steps"]
        assert [step.key for step in found.document.steps] == ["sum"]
    draft = await run(acme, made["id"], "draft", discover=False)
    assert (draft.version_id, draft.version) == (None, None)
    assert decode(draft.body)["steps"] == [OTHER]
    assert (draft.workflow_app_id, draft.name, draft.caller_limit) == (acme.id, "Sum", 2)
    assert draft.retention == b'{"max_age_in_seconds":60}'


async def test_a_caller_runs_what_was_deployed_since_publication(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    made = await acme.make()
    for _ in range(2):
        await acme.deploy(made["id"], force=True)
    assert await refused(globex, made["id"]) == "NotFound"
    await acme.patch(made["id"], discoverable=True)
    third = await acme.deploy(made["id"], force=True)
    assert (await run(globex, made["id"])).version == 3
    assert (await run(globex, made["id"], 2)).version == 2
    assert (await run(globex, made["id"], third["id"])).version == 3
    assert await refused(globex, made["id"], 1) == "NotFound"
    assert await refused(globex, made["id"], 4) == "NotFound"
    assert await refused(globex, made["id"], "draft") == "BadInput"
    assert await refused(globex, made["id"], None, discover=False) == "NotFound"
    await acme.ask("PATCH", f"/workflows/{made['id']}/versions/3", {"withdrawn": True})
    assert (await run(globex, made["id"])).version == 2
    assert await refused(globex, made["id"], 3) == "NotFound"
    assert (await run(acme, made["id"], None, discover=False)).version == 3


async def test_a_version_of_another_workflow_is_not_there(platform: Platform) -> None:
    one, two = await platform.acme.publish(), await platform.acme.publish()
    version = two["version"]["id"]
    assert await refused(platform.acme, one["id"], version, discover=False) == "NotFound"
    assert await refused(platform.globex, one["id"], version) == "NotFound"
    assert await refused(platform.globex, new_id("work")) == "NotFound"


async def test_every_change_counts_from_the_next_run_on(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    made = await acme.publish()
    path = f"/workflows/{made['id']}"
    steps: list[tuple[str, str, Any, str]] = [
        ("PATCH", path, {"enabled": False}, "Conflict"),
        ("PATCH", path, {"enabled": True}, "allowed"),
        ("PUT", f"{path}/callers/{globex.id}", None, "NotFound"),
        ("DELETE", f"{path}/callers/{globex.id}", None, "allowed"),
        ("PATCH", path, {"discoverable": False}, "NotFound"),
        ("PATCH", path, {"discoverable": True}, "allowed"),
        ("DELETE", path, None, "NotFound"),
    ]
    for method, where, body, outcome in steps:
        assert (await acme.ask(method, where, body)).status_code == 200
        assert await refused(globex, made["id"]) == outcome
    assert await refused(acme, made["id"], None, discover=False) == "NotFound"


async def test_a_draft_that_changed_is_read_again(platform: Platform) -> None:
    made = await platform.acme.make()
    await run(platform.acme, made["id"], "draft", discover=False)
    await platform.acme.patch(made["id"], steps=[OTHER])
    draft = await run(platform.acme, made["id"], "draft", discover=False)
    assert decode(draft.body)["steps"] == [OTHER]


class Holding:
    """A database whose reads can be held back after they have read."""

    def __init__(self, platform: Platform) -> None:
        self.inner = platform.database
        self.read_done = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self, query: Callable[[Connection], T]) -> T:
        value = await self.inner.read(query)
        self.read_done.set()
        await self.go_on.wait()
        return value

    async def write(self, unit: Callable[[Connection], T]) -> T:
        return await self.inner.write(unit)

    async def close(self) -> None:
        await self.inner.close()


async def test_what_was_read_before_a_change_is_not_kept(platform: Platform) -> None:
    made = await platform.acme.publish()
    database = Holding(platform)
    resolver = Resolver(database)
    early = asyncio.create_task(resolver.facts(made["id"]))
    await database.read_done.wait()
    await resolver.apply(made["id"], _nothing())
    database.go_on.set()
    await early
    await platform.acme.patch(made["id"], discoverable=False)
    facts = await resolver.facts(made["id"])
    assert facts is not None
    assert not facts.discoverable


async def _nothing() -> None:
    await asyncio.sleep(0)


async def test_a_change_counts_even_if_its_caller_goes_away(platform: Platform) -> None:
    made = await platform.acme.publish()
    assert await refused(platform.globex, made["id"]) == "allowed"
    started, finish = asyncio.Event(), asyncio.Event()

    async def unpublish() -> None:
        started.set()
        await finish.wait()
        await platform.acme.patch(made["id"], discoverable=False)

    caller = asyncio.create_task(platform.resolver.apply(made["id"], unpublish()))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    finish.set()
    await platform.resolver.close()
    assert await refused(platform.globex, made["id"]) == "NotFound"


async def test_nothing_starts_while_it_is_being_deleted(platform: Platform) -> None:
    made = await platform.acme.publish()
    with platform.resolver.closing(made["id"]):
        assert await refused(platform.globex, made["id"]) == "Conflict"
        with platform.resolver.closing(made["id"]):
            pass
        assert await refused(platform.acme, made["id"], None, discover=False) == "Conflict"
    assert await refused(platform.globex, made["id"]) == "allowed"


async def test_a_child_is_found_with_the_rights_of_its_parents_app(platform: Platform) -> None:
    own = await platform.globex.make()
    await platform.globex.deploy(own["id"])
    shared = await platform.acme.publish()
    private = await platform.acme.make()
    resolver, globex = platform.resolver, platform.globex.id
    assert (await resolver.resolve_child(globex, own["id"])).workflow_id == own["id"]
    assert (await resolver.resolve_child(globex, own["id"], "draft")).version is None
    assert (await resolver.resolve_child(globex, shared["id"])).workflow_id == shared["id"]
    with pytest.raises(BadInput):
        await resolver.resolve_child(globex, shared["id"], "draft")
    for unknown in (private["id"], new_id("work")):
        with pytest.raises(NotFound):
            await resolver.resolve_child(globex, unknown)
    version = shared["version"]["id"]
    assert await resolver.may_run(globex, shared["id"], version)
    assert not await resolver.may_run(globex, shared["id"], None)
    assert not await resolver.may_run(globex, private["id"], None)
    assert not await resolver.may_run(globex, new_id("work"), None)
    assert await resolver.may_run(platform.acme.id, private["id"], None)


async def test_versions_in_runs_show_what_their_viewer_may_see(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    shared = await acme.publish()
    closed = await acme.publish()
    await acme.patch(closed["id"], open=False)
    ids = [shared["version"]["id"], closed["version"]["id"]]
    for _ in range(2):  # the second time from memory
        mine = await platform.resolver.versions_for_runs([*ids, new_id("workv")], acme.id)
        assert {name: decode(text) for name, text in mine.items()} == {
            ids[0]: shared["version"],
            ids[1]: closed["version"],
        }
        theirs = await platform.resolver.versions_for_runs(ids, globex.id)
        seen = [decode(theirs[version_id]) for version_id in ids]
        assert [version["steps"] for version in seen] == [[CODE], []]
        assert not any("created_by" in version for version in seen)
    await acme.patch(closed["id"], open=True)
    theirs = await platform.resolver.versions_for_runs(ids, globex.id)
    assert decode(theirs[ids[1]])["steps"] == [CODE]
    assert await platform.resolver.versions_for_runs([], globex.id) == {}


async def test_a_known_version_is_found_without_the_database(platform: Platform) -> None:
    made = await platform.acme.publish()
    await run(platform.globex, made["id"])
    await platform.database.close()
    for _ in range(500):
        await run(platform.globex, made["id"])
