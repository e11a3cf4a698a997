"""Starting runs: plain, in the background, with the same key again, and where there is no room."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from tests.contract import validate
from tests.runs.platform import Platform, child, code, open_platform
from tests.runs.test_stream import Wire

from insula.engine.failures import StepFailure
from insula.errors import Unavailable
from insula.files import resolve
from insula.runs import replay, start

DATABASES = ("sqlite", "postgres")

FILE = {"doc": {"type": "file", "order": 0}}
INPUT = {"name": {"type": "string", "order": 0}, "n": {"type": "number", "optional": True}}


async def test_a_run_answers_when_it_has_ended(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1", "b"), code("b", 'return {"result": [2]}'))
    run = await platform.acme.run(flow)
    assert run["status"] == "COMPLETED"
    assert run["result"] == [2]
    assert list(run["output"]) == ["a", "b"]
    assert run["version"] == 1
    assert run["workflow_version"]["version"] == 1
    assert run["workflow_version_draft"] is None
    assert run["app_id"] == run["workflow_app_id"] == platform.acme.id
    validate(run, "RunSchema")
    again = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{run['id']}")
    assert again == run


async def test_a_body_may_be_left_out(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    answer = await platform.acme.ask("POST", f"/workflows/{flow}/runs")
    assert answer.json()["status"] == "COMPLETED"


async def test_a_draft_runs_for_its_app_alone(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    run = await platform.acme.run(flow, workflow_version_id="draft")
    assert run["workflow_version"] is None
    assert "version" not in run
    assert [step["key"] for step in run["workflow_version_draft"]["steps"]] == ["a"]
    validate(run, "RunSchema")
    refused = await platform.globex.ask(
        "POST", f"/workflows/discover/{flow}/runs", {"workflow_version_id": "draft"}
    )
    assert refused.status_code == 400


async def test_a_form_brings_text(platform: Platform) -> None:
    start = {"type": "input", "key": "start", "input": INPUT, "destinations": ["a"]}
    flow = await platform.acme.make(start, code("a", "return input"))
    answer = await platform.acme.ask(
        "POST", f"/workflows/{flow}/runs", data={"input": '{"name": "x", "n": "4"}'}
    )
    assert answer.json()["input"] == {"name": "x", "n": 4}
    wrong = await platform.acme.ask("POST", f"/workflows/{flow}/runs", {"input": {"n": "x"}})
    assert wrong.status_code == 400
    assert sorted(entry["path"][-1] for entry in wrong.json()["errors"]) == ["n", "name"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"workflow_version_id": 7}, 404),
        ({"workflow_version_id": "workv_x"}, 404),
        ({"from_step_key": "nowhere"}, 400),
        ({"input": []}, 400),
        ({"timeout": -1}, 400),
        ({"limits": {"cpu": "x"}}, 400),
        ({"retention": -2}, 400),
        ({"retention": {"max_age_in_seconds": True}}, 400),
        ({"identifier": "a\x00b"}, 400),
        ({"on_disconnect": "maybe"}, 400),
    ],
)
async def test_what_cannot_be_used_starts_nothing(
    platform: Platform, body: dict[str, Any], status: int
) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    answer = await platform.acme.ask("POST", f"/workflows/{flow}/runs", body)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"] == status
    assert await platform.rows("SELECT id FROM runs") == []


async def test_what_is_not_there_says_what_to_do(platform: Platform) -> None:
    made = await platform.acme.ok("POST", "/workflows", {"name": "W", "steps": []})
    own = f"/workflows/{made['id']}/runs"
    undeployed = await platform.acme.ask("POST", own, {})
    assert undeployed.status_code == 400
    assert "draft" in undeployed.json()["message"]
    await platform.acme.ok("POST", f"/workflows/{made['id']}/versions", {"force": True})
    await platform.acme.ok("PATCH", f"/workflows/{made['id']}", {"enabled": False})
    assert (await platform.acme.ask("POST", own, {})).status_code == 409
    assert (await platform.globex.ask("POST", own, {})).status_code == 404
    await platform.acme.ok("DELETE", f"/workflows/{made['id']}")
    assert (await platform.acme.ask("POST", own, {})).status_code == 404


async def test_a_run_in_the_background_answers_at_once(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(flow, background=True)
    assert run["status"] == "RUNNING"
    assert run["ended_at"] is None
    validate(run, "RunSchema")
    await platform.reached("g")
    platform.gate("g").opened.set()
    await platform.idle()
    ended = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{run['id']}")
    assert ended["status"] == "COMPLETED"


async def test_only_so_many_runs_are_live_however_many_come_together(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=4, runs_share=0.5) as platform:
        flow = await platform.acme.publish(code("a", "wait(g)"))
        started = [
            asyncio.ensure_future(platform.acme.ask("POST", f"/workflows/{flow}/runs"))
            for _ in range(6)
        ]
        done, waiting = await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 4:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        refused = [task.result() for task in done]
        assert {answer.status_code for answer in refused} == {429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        other = await platform.globex.discover(flow, background=True)
        assert other["status"] == "RUNNING"
        platform.gate("g").opened.set()
        assert {(await task).status_code for task in waiting} == {200}
        await platform.idle()
        assert len(platform.services.live) == 0
        assert (await platform.acme.run(flow))["status"] == "COMPLETED"


async def test_the_owner_limits_each_caller(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"), caller_limit=1)
    first = await platform.globex.discover(flow, background=True)
    await platform.reached("g")
    path = f"/workflows/discover/{flow}/runs"
    refused = await platform.globex.ask("POST", path, {})
    assert refused.status_code == 429
    for _ in range(2):  # itself it does not limit
        assert (await platform.acme.run(flow, background=True))["status"] == "RUNNING"
    await platform.globex.ok("POST", f"{path}/{first['id']}/cancel")
    platform.gate("g").opened.set()
    assert (await platform.globex.discover(flow))["status"] == "COMPLETED"


async def test_a_failure_whose_words_no_database_takes_is_told_all_the_same(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def throw(*_: Any) -> Any:
        raise StepFailure("Error: a\0b", "script")

    monkeypatch.setattr(platform.sandbox, "evaluate", throw)
    flow = await platform.acme.make(code("a", "return 1"))
    run = await platform.acme.run(flow)
    assert (run["status"], run["error"]) == ("FAILED", "Error: a\ufffdb")


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("plain", "unpublished"),
        ("plain", "disabled"),
        ("plain", "deleted"),
        *((how, "blocked") for how in ("plain", "waiting", "replay", "child")),
    ],
)
async def test_what_the_owner_ends_while_files_are_taken_in_starts_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, how: str, change: str
) -> None:
    form = {"type": "input", "key": "start", "input": FILE, "destinations": ["a"]}
    flow = await platform.acme.publish(form, code("a", "return 1"))
    body: dict[str, Any] = {"input": {"doc": "data:,x"}}
    earlier = await platform.globex.discover(flow, **body)
    outer = await platform.globex.make(child("o", flow, **body))
    platform.sandbox.evaluated.clear()

    async def changed_meanwhile(taking: Any, *given: Any, **named: Any) -> Any:
        path, caller = f"/workflows/{flow}", platform.globex.id
        verbs: dict[str, Any] = {
            "blocked": ("PUT", f"{path}/callers/{caller}"),
            "unpublished": ("PATCH", path, {"discoverable": False}),
            "disabled": ("PATCH", path, {"enabled": False}),
            "deleted": ("DELETE", path),
        }
        monkeypatch.undo()
        await platform.acme.ok(*verbs[change])
        return await taking(*given, **named)

    for module, name in ((resolve, "store_file"), (replay, "copy_held")):
        taking = getattr(module, name)
        monkeypatch.setattr(module, name, partial(changed_meanwhile, taking))
    if how == "waiting":
        monkeypatch.setattr(platform.services.live, "app_maximum", 9)
    path = f"/workflows/discover/{flow}/runs"
    if how == "child":
        run = await platform.globex.run(outer)
        assert (run["status"], run["error_code"]) == ("FAILED", "child")
    else:
        if how == "replay":
            path, body = f"{path}/{earlier['id']}/replay", {"stepKey": "a"}
        answer = await platform.globex.ask("POST", path, {**body, "background": how == "waiting"})
        assert answer.status_code == (409 if change == "disabled" else 404)
    assert platform.sandbox.evaluated == []
    assert len(await platform.rows("SELECT id FROM files")) == 1  # the first run's


DOCS = {"docs": {"type": "file", "array": True}}


async def test_an_input_has_only_so_many_files(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "FILES_MAX", 2)
    form = {"type": "input", "key": "start", "input": DOCS, "destinations": ["a"]}
    flow = await platform.acme.make(form, code("a", "return 1"))
    path = f"/workflows/{flow}/runs"
    answer = await platform.acme.ask("POST", path, {"input": {"docs": ["data:,x"] * 3}})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "too_many")
    assert not await platform.rows("SELECT id FROM files")
    assert (await platform.acme.run(flow, input={"docs": ["data:,x"] * 2}))["result"] == 1


async def test_a_start_that_is_refused_leaves_no_files(platform: Platform, tmp_path: Path) -> None:
    form = {"type": "input", "key": "start", "input": DOCS, "destinations": ["a"]}
    flow = await platform.acme.make(form, code("a", "return 1"))
    path = f"/workflows/{flow}/runs"
    refused = await platform.acme.ask("POST", path, {"input": {"docs": ["data:,x", "!"]}})
    assert refused.status_code == 400
    assert not await platform.rows("SELECT id FROM files")
    left = await asyncio.to_thread(lambda: [*(tmp_path / "files").rglob("*")])
    assert not [path for path in left if path.is_file()]


async def test_who_goes_away_ends_the_taking_in_of_files_if_the_run_would_be_cancelled(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()

    async def one_and_no_more(*given: Any, **named: Any) -> Any:
        if await platform.rows("SELECT id FROM files"):
            waiting.set()
            await asyncio.get_running_loop().create_future()
        return await store_file(*given, **named)

    store_file = resolve.store_file
    monkeypatch.setattr(resolve, "store_file", one_and_no_more)
    form = {"type": "input", "key": "start", "input": DOCS, "destinations": ["a"]}
    flow = await platform.acme.make(form, code("a", "return 1"))
    body = {"input": {"docs": ["data:,x"] * 2}, "on_disconnect": "cancel"}
    wire = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", body)
    serving = asyncio.ensure_future(wire.serve(platform.insula.asgi))
    await waiting.wait()
    wire.leave()
    await serving
    assert not await platform.rows("SELECT id FROM files")
    assert not await platform.rows("SELECT id FROM runs")
    assert platform.services.live.held(platform.acme.id) == 0


async def test_the_same_key_is_the_same_run(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    path, headers = f"/workflows/{flow}/runs", {"idempotency-key": "k"}
    body = {"input": {"x": 1}}
    first = asyncio.ensure_future(platform.acme.ask("POST", path, body, headers=headers))
    second = asyncio.ensure_future(platform.acme.ask("POST", path, body, headers=headers))
    await platform.reached("g")
    third = asyncio.ensure_future(platform.acme.ask("POST", path, body, headers=headers))
    changed = await platform.acme.ask("POST", path, {"input": {"x": 2}}, headers=headers)
    assert changed.status_code == 422
    platform.gate("g").opened.set()
    answers = [(await each).json() for each in (first, second, third)]
    assert answers[0] == answers[1] == answers[2]
    later = await platform.acme.ok("POST", path, body, headers=headers)
    assert later == answers[0]
    assert len(await platform.rows("SELECT id FROM runs")) == 1
    assert len(platform.services.live) == 0


async def test_a_repeat_attaches_where_there_is_no_room(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        path, headers = f"/workflows/{flow}/runs", {"idempotency-key": "k"}
        body = {"background": True}
        first = await platform.acme.ok("POST", path, body, headers=headers)
        again = await platform.acme.ok("POST", path, body, headers=headers)
        assert (again["id"], again["status"]) == (first["id"], "RUNNING")
        platform.gate("g").opened.set()
        await platform.idle()


async def test_a_repeated_stream_begins_at_the_first_event(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    path, headers = f"/workflows/{flow}/runs", {"idempotency-key": "k"}
    body = {"stream": True}
    first = await platform.acme.stream(path, body, headers=headers)
    again = await platform.acme.stream(path, body, headers=headers)
    assert [one.text for one in first] == [one.text for one in again]
    assert [one.event for one in first] == ["run", "step", "step", "run"]


async def test_a_form_with_the_same_key_is_the_same_run(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    path, headers = f"/workflows/{flow}/runs", {"idempotency-key": "k"}
    ids = {
        (await platform.acme.ok("POST", path, files={"input": (None, "{}")}, headers=headers))["id"]
        for _ in range(2)
    }
    assert len(ids) == 1


async def test_a_run_takes_limits_below_the_installation_s(tmp_path: Path) -> None:
    async with open_platform(tmp_path, sandbox_cpu=20, sandbox_output=9_000) as platform:
        flow = await platform.acme.make(code("a", "return 1"))
        await platform.acme.run(flow, limits={"cpu": 25, "wall": 7})
        assert (platform.sandbox.limits[-1].cpu, platform.sandbox.limits[-1].wall) == (20, 7)
        assert platform.sandbox.limits[-1].output == 9_000


async def test_a_run_that_takes_too_long_fails(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(flow, timeout=1)
    assert (run["status"], run["error_code"]) == ("FAILED", "timeout")
    assert run["output"]["a"]["status"] == "CANCELLED"


async def test_a_step_of_a_run_is_run_from(platform: Platform) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b"), code("b", "return 2", "c"), code("c", "return 3")
    )
    run = await platform.acme.run(flow, from_step_key="b")
    assert list(run["output"]) == ["b", "c"]


@pytest.mark.parametrize("more", [{}, {"background": True}])
async def test_what_is_stored_is_told_where_its_workflow_cannot_be_read_any_more(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """It runs: whoever was told otherwise would start another."""
    flow = await platform.acme.make(code("a", "return 1"))
    resolver, create = platform.services.resolver, start.create
    facts = resolver.facts

    async def stored_and_away(*given: Any) -> Any:
        made = await create(*given)
        away = AsyncMock(side_effect=[Unavailable("away"), await facts(flow)])
        monkeypatch.setattr(resolver, "facts", away)
        return made

    monkeypatch.setattr(start, "create", stored_and_away)
    run = await platform.acme.run(flow, **more)
    monkeypatch.setattr(resolver, "facts", facts)
    stream = await platform.acme.stream(f"/workflows/{flow}/runs/{run['id']}/stream")
    assert stream[-1].data["status"] == "COMPLETED"
