"""Replaying: what is kept, what runs again, and what cannot be replayed."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection
from tests.contract import validate
from tests.runs.platform import Caller, Platform, code, model, open_platform

from insula.files import extractions, repository
from insula.files.wish import Wish
from insula.kit import json
from insula.kit.ids import new_id
from insula.runs import replay as replaying
from insula.runs.plans import Plans

DATABASES = ("sqlite", "postgres")
NOT_ENDED = "SELECT id FROM runs WHERE ended_at IS NULL"


async def replay(caller: Caller, run: Any, step_key: str, **body: Any) -> Any:
    path = f"/workflows/{run['workflow_id']}/runs/{run['id']}/replay"
    return await caller.ok("POST", path, {"stepKey": step_key, **body})


def statuses(run: Any) -> dict[str, str]:
    return {key: step["status"] for key, step in run["output"].items()}


async def test_what_is_not_downstream_is_kept_and_costs_nothing(platform: Platform) -> None:
    replies = [{"tool_calls": [{"name": "t", "input": {}}], "credits": 2}, {"text": "x"}]
    flow = await platform.acme.make(
        model("m", replies, "b", provider={"tools": ["t"]}),
        code("t", "return 5"),
        code("b", "return 1", "c"),
        code("c", "return input.x", retention=None),
        code("side", "return 8"),
    )
    first = await platform.acme.run(flow, input={"x": 4})
    platform.sandbox.evaluated.clear()
    second = await replay(platform.acme, first, "b")
    validate(second, "RunSchema")
    assert second["id"] != first["id"]
    assert platform.sandbox.evaluated == ["1", "input.x"]
    assert second["result"] == first["result"] == 4
    assert second["output"]["m"] == first["output"]["m"]
    assert second["output"]["m"]["calls"][0]["status"] == "COMPLETED"
    assert second["output"]["side"] == first["output"]["side"]
    assert first["usage"]["total"] == 2
    assert second["usage"]["total"] == 0
    assert second["input"] == {"x": 4}


async def test_a_replay_of_a_replay(platform: Platform) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b"), code("b", "return 2", "c"), code("c", "return 3")
    )
    first = await platform.acme.run(flow)
    second = await replay(platform.acme, first, "b")
    platform.sandbox.evaluated.clear()
    third = await replay(platform.acme, second, "c")
    assert platform.sandbox.evaluated == ["3"]
    assert statuses(third) == dict.fromkeys("abc", "COMPLETED")
    fourth = await replay(platform.acme, third, "a")
    assert platform.sandbox.evaluated == ["3", "1", "2", "3"]
    assert statuses(fourth) == statuses(third)


async def test_a_step_that_was_skipped_is_live_in_its_replay(platform: Platform) -> None:
    branch = {
        "type": "branch",
        "key": "choose",
        "conditions": {"yes": {"condition": "true", "destinations": ["x"], "order": 0}},
        "else": ["y"],
    }
    flow = await platform.acme.make(
        branch, code("x", "return 1"), code("y", "return 2", "z"), code("z", "return 3")
    )
    first = await platform.acme.run(flow)
    assert statuses(first)["y"] == "SKIPPED"
    platform.sandbox.evaluated.clear()
    second = await replay(platform.acme, first, "y")
    assert platform.sandbox.evaluated == ["2", "3"]
    assert second["output"]["choose"] == first["output"]["choose"]
    assert set(statuses(second).values()) == {"COMPLETED"}
    third = await replay(platform.acme, second, "z")
    assert platform.sandbox.evaluated == ["2", "3", "3"]
    assert statuses(third)["y"] == "COMPLETED"


async def test_a_step_that_is_kept_as_skipped_keeps_its_logs(platform: Platform) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b", conditional="false"), code("b", "return 2")
    )
    platform.sandbox.logs = json.raw([{"level": "log", "time": 1, "args": ["no"]}])
    first = await platform.acme.run(flow)
    platform.sandbox.logs = None
    second = await replay(platform.acme, first, "b")
    assert (first["output"]["a"]["status"], len(first["output"]["a"]["logs"])) == ("SKIPPED", 1)
    assert second["output"]["a"] == first["output"]["a"]


async def test_failures_that_were_continued_are_kept_and_others_run_again(
    platform: Platform,
) -> None:
    flow = await platform.acme.make(
        code("soft", "fail(early)", "b", throw_on_error=False),
        code("b", "return 1", "hard"),
        code("hard", "fail(late)", "after"),
        code("after", "return 2"),
    )
    first = await platform.acme.run(flow)
    assert (first["status"], first["error"]) == ("FAILED", "It failed: late")
    platform.sandbox.evaluated.clear()
    second = await replay(platform.acme, first, "b")
    assert platform.sandbox.evaluated == ["1", "fail(late)"]
    assert second["output"]["soft"] == first["output"]["soft"]
    assert second["status"] == "FAILED"


async def test_cancelled_and_absent_steps_are_scheduled_anew(platform: Platform) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b"), code("b", "wait(g)", "c"), code("c", "return 3")
    )
    run = await platform.acme.run(flow, background=True)
    await platform.reached("g")
    path = f"/workflows/{flow}/runs/{run['id']}"
    assert (await platform.acme.ask("POST", f"{path}/replay", {"stepKey": "c"})).status_code == 409
    stopped = await platform.acme.ok("POST", f"{path}/cancel")
    platform.gate("g").opened.set()
    second = await replay(platform.acme, stopped, "c")
    assert statuses(second) == dict.fromkeys("abc", "COMPLETED")


async def test_a_run_from_a_step_stays_one(platform: Platform) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b"), code("b", "return 2", "c"), code("c", "return 3")
    )
    first = await platform.acme.run(flow, from_step_key="b")
    second = await replay(platform.acme, first, "c")
    assert list(second["output"]) == ["b", "c"]
    path = f"/workflows/{flow}/runs/{first['id']}/replay"
    unreached = await platform.acme.ask("POST", path, {"stepKey": "a"})
    assert unreached.status_code == 400


async def test_a_draft_is_replayed_as_it_was(platform: Platform) -> None:
    made = await platform.acme.ok("POST", "/workflows", {"name": "W", "steps": [code("a", "1")]})
    first = await platform.acme.run(made["id"], workflow_version_id="draft")
    await platform.acme.ok("PATCH", f"/workflows/{made['id']}", {"steps": [code("a", "2")]})
    second = await replay(platform.acme, first, "a")
    assert second["result"] == 1
    assert second["workflow_version_draft"] == first["workflow_version_draft"]


@pytest.mark.parametrize("step_key", ["nowhere", "note", "tool"])
async def test_what_cannot_start_a_replay_is_400(platform: Platform, step_key: str) -> None:
    flow = await platform.acme.make(
        {"type": "note", "key": "note", "note": "x"},
        model("m", [{"text": "x"}], provider={"tools": ["tool"]}),
        code("tool", "return 1"),
    )
    run = await platform.acme.run(flow)
    path = f"/workflows/{flow}/runs/{run['id']}/replay"
    answer = await platform.acme.ask("POST", path, {"stepKey": step_key})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == ["stepKey"]
    assert (await platform.acme.ask("POST", path, {})).status_code == 400


async def test_what_is_erased_disabled_or_deleted_is_not_replayed(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    erased = await platform.acme.run(flow, retention=0)
    kept = await platform.acme.run(flow)
    base = f"/workflows/{flow}/runs"
    body = {"stepKey": "a"}
    answer = await platform.acme.ask("POST", f"{base}/{erased['id']}/replay", body)
    assert answer.status_code == 409
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"enabled": False})
    answer = await platform.acme.ask("POST", f"{base}/{kept['id']}/replay", body)
    assert answer.status_code == 409
    await platform.acme.ok("DELETE", f"/workflows/{flow}")
    answer = await platform.acme.ask("POST", f"{base}/{kept['id']}/replay", body)
    assert answer.status_code == 404


async def test_what_is_erased_meanwhile_does_not_run_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b"), code("b", "return 2", "c"), code("c", "return 3")
    )
    first = await platform.acme.run(flow)
    path = f"/workflows/{flow}/runs/{first['id']}"
    lay_out = Plans.lay_out

    async def erasing(*given: Any) -> Any:
        await platform.acme.ok("DELETE", path)
        return await lay_out(*given)

    monkeypatch.setattr(Plans, "lay_out", erasing)
    platform.sandbox.evaluated.clear()
    second = await replay(platform.acme, first, "c")
    assert platform.sandbox.evaluated == ["3"]
    assert statuses(second) == dict.fromkeys("abc", "COMPLETED")
    answer = await platform.acme.ask("POST", f"{path}/replay", {"stepKey": "c"})
    assert answer.status_code == 409


async def test_through_the_catalogue_while_it_is_published(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1", "b"), code("b", "return 2"))
    first = await platform.globex.discover(flow)
    path = f"/workflows/discover/{flow}/runs/{first['id']}/replay"
    second = await platform.globex.ok("POST", path, {"stepKey": "b", "identifier": "again"})
    assert (second["app_id"], second["identifier"]) == (platform.globex.id, "again")
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    assert (await platform.globex.ask("POST", path, {"stepKey": "b"})).status_code == 404


async def test_a_replay_streams_from_what_it_keeps(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
    first = await platform.acme.run(flow)
    path = f"/workflows/{flow}/runs/{first['id']}/replay"
    told = await platform.acme.stream(path, {"stepKey": "b", "stream": True})
    assert [(one.event, one.data.get("key")) for one in told] == [
        ("run", None),
        ("step", "a"),
        ("step", "a"),
        ("step", "b"),
        ("step", "b"),
        ("run", None),
    ]
    resumed = f"/workflows/{flow}/runs/{told[-1].data['id']}/stream?from=0"
    assert [one.text for one in await platform.acme.stream(resumed)] == [one.text for one in told]


async def test_a_replay_keeps_limits_and_takes_a_key(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    first = await platform.acme.run(flow, limits={"cpu": 3})
    path = f"/workflows/{flow}/runs/{first['id']}/replay"
    headers = {"idempotency-key": "k"}
    second = await platform.acme.ok("POST", path, {"stepKey": "a"}, headers=headers)
    assert platform.sandbox.limits[-1].cpu == 3
    third = await platform.acme.ok("POST", path, {"stepKey": "a"}, headers=headers)
    assert second == third
    other = await platform.acme.ask(
        "POST", path, {"stepKey": "a", "identifier": "x"}, headers=headers
    )
    assert other.status_code == 422


async def test_a_replay_waits_where_there_is_no_room(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
        first = await platform.acme.run(flow)
        busy = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(busy, background=True)
        await platform.reached("g")
        path = f"/workflows/{flow}/runs/{first['id']}/replay"
        assert (await platform.acme.ask("POST", path, {"stepKey": "b"})).status_code == 429
        waiting = await replay(platform.acme, first, "b", background=True)
        assert (waiting["status"], statuses(waiting)) == ("PENDING", {"a": "COMPLETED"})
        told = platform.services.journal.subscribe(waiting["id"])
        platform.gate("g").opened.set()
        async for _ in told:
            pass
        ended = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{waiting['id']}")
        assert statuses(ended) == {"a": "COMPLETED", "b": "COMPLETED"}
        assert platform.sandbox.evaluated.count("1") == 1


async def test_a_replay_that_waits_does_not_begin_in_a_workflow_that_was_deleted(
    tmp_path: Path, database_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deleted_meanwhile(*given: Any) -> Any:
        await platform.acme.ok("DELETE", f"/workflows/{flow}")
        return await copied(*given)

    copied = replaying.copy_held
    monkeypatch.setattr(replaying, "copy_held", deleted_meanwhile)
    async with open_platform(tmp_path, database_url=database_url, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
        busy = await platform.acme.make(code("a", "wait(g)"))
        first = await platform.acme.run(flow)
        await platform.acme.run(busy, background=True)
        await platform.reached("g")
        platform.sandbox.evaluated.clear()
        path = f"/workflows/{flow}/runs/{first['id']}/replay"
        await platform.acme.ask("POST", path, {"stepKey": "b", "background": True})
        platform.gate("g").opened.set()
        await platform.idle()
        assert not await platform.rows(NOT_ENDED)
        assert platform.sandbox.evaluated == []


FILE_FLOW = {"doc": {"type": "file", "order": 0}}


async def held(platform: Platform) -> tuple[Any, Any]:
    """Run with a file in the input, whose address a step repeats; return the run, and the rows."""
    start = {"type": "input", "key": "start", "input": FILE_FLOW, "destinations": ["a"]}
    flow = await platform.acme.make(
        start, code("a", "return input.doc.file_url", "b"), code("b", "return 1")
    )
    doc = {"data": "hello", "name": "a.txt", "encoding": "raw"}
    run = await platform.acme.run(flow, input={"doc": doc})
    return run, await platform.rows("SELECT id FROM files")


async def content(platform: Platform, url: str) -> tuple[int, bytes]:
    answer = await platform.acme.client.get(url[url.index("/files/") :])
    return answer.status_code, answer.content


async def test_a_replay_keeps_files_of_its_own(platform: Platform) -> None:
    first, _ = await held(platform)
    second = await replay(platform.acme, first, "b")
    third = await replay(platform.acme, second, "b")
    ids = {run["input"]["doc"]["id"] for run in (first, second, third)}
    assert len(ids) == 3
    for run in (first, second):
        path = f"/workflows/{run['workflow_id']}/runs/{run['id']}"
        await platform.acme.ok("DELETE", path)
    for url in (third["input"]["doc"]["file_url"], third["output"]["a"]["output"]):
        assert third["input"]["doc"]["id"] in url
        assert await content(platform, url) == (200, b"hello")
    await platform.change("UPDATE files SET expires_at = 1")
    await platform.services.files.sweep()
    assert await content(platform, third["input"]["doc"]["file_url"]) == (200, b"hello")
    await platform.acme.ok("DELETE", f"/workflows/{third['workflow_id']}/runs/{third['id']}")
    assert await platform.rows("SELECT id FROM files") == []


async def test_what_was_read_of_a_file_is_taken_over(platform: Platform) -> None:
    first, [(file_id,)] = await held(platform)
    store = platform.services.files.store
    row = await platform.read(partial(repository.find_file, file_id=file_id))
    assert row is not None
    page = replace(row, id=new_id("file"), parent_id=file_id)
    await store.blobs.copy(file_id, page.id)
    found = {"contents": [], "images": [{"file_id": page.id}], "pages": None, "time": 0}
    wish = Wish(images=True)

    def unit(connection: Connection) -> None:
        repository.insert_file(connection, page)
        began = extractions.begin(connection, file_id, row.app_id, row.mimetype, wish)
        done = replace(began, file_id=page.id, status="PROCESSED")
        extractions.insert_whole(connection, done, None)
        extractions.claim(connection, "t", [], "")
        packed = extractions.compressed(found)
        assert extractions.finish(connection, file_id, "t", document=packed, message=None)

    await store.database.write(unit)
    second = await replay(platform.acme, first, "b")
    own = second["input"]["doc"]["id"]
    document = await platform.read(partial(extractions.find_document, file_id=own))
    assert document is not None
    (image,) = document["images"]
    assert image["file_id"] != page.id
    copied = await platform.read(partial(repository.find_file, file_id=image["file_id"]))
    assert copied is not None
    assert (copied.parent_id, copied.run_id) == (own, second["id"])
    assert await store.blobs.read(copied.id) == b"hello"


async def test_a_file_that_is_gone_meanwhile_is_no_input(platform: Platform) -> None:
    first, [(file_id,)] = await held(platform)
    await platform.services.files.store.blobs.delete(file_id)
    path = f"/workflows/{first['workflow_id']}/runs/{first['id']}/replay"
    answer = await platform.acme.ask("POST", path, {"stepKey": "b"})
    assert answer.status_code == 409
    assert len(await platform.rows("SELECT id FROM files")) == 1
