"""What the caller of a workflow that is not open sees of its runs: nowhere more than that."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract import validate
from tests.runs.platform import Caller, Platform, code, model, open_platform

SECRETS = ("hush", "buried", "think", "gate")


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path) as opened:
        yield opened


async def closed(platform: Platform, **changed: str) -> str:
    fields = {"q": {"type": "string", "order": 0}}
    return await platform.acme.publish(
        {"type": "input", "key": "start", "input": fields, "destinations": ["buried"]},
        code("buried", changed.get("buried", 'return "hush"'), "think"),
        model("think", [{"text": "hush", "tokens": 1, "credits": 4}], "last"),
        code("last", changed.get("last", 'return {"result": 5}')),
        {"type": "note", "key": "memo", "note": "hush"},
        code("tool", "return 1"),
        model("end", [{"text": "bye"}], provider={"tools": ["tool"]}),
        open=False,
    )


def check(shown: Any) -> None:
    text = str(shown)
    assert not [word for word in SECRETS if word in text], text


async def ask(caller: Caller, flow: str, **body: Any) -> Any:
    return await caller.discover(flow, input={"q": "x"}, **body)


async def test_a_run_and_its_lists(whole: Platform) -> None:
    flow = await closed(whole)
    run = await ask(whole.globex, flow)
    validate(run, "RunSchema")
    assert (run["status"], run["result"], run["input"]) == ("COMPLETED", 5, {"q": "x"})
    assert list(run["output"]) == ["last"]
    assert run["workflow_version"]["steps"] == []
    assert run["usage"] == {"total": 4, "steps": {}}
    path = f"/workflows/discover/{flow}/runs"
    begin = {"stream": True, "input": {"q": ""}}
    for one in (
        run,
        await whole.globex.ok("GET", f"{path}/{run['id']}", params={"verbose": "all"}),
        await whole.globex.ok("GET", path, params={"verbose": "all"}),
        await whole.globex.ok("GET", "/runs", params={"verbose": "all"}),
        await whole.globex.ok("PATCH", f"{path}/{run['id']}/retention", {"retention": 60}),
        await whole.globex.ok("POST", f"{path}/{run['id']}/cancel", params={"verbose": "all"}),
        [told.data for told in await whole.globex.stream(f"{path}/{run['id']}/stream")],
        [told.data for told in await whole.globex.stream(path, begin)],
    ):
        check(one)


async def test_errors_of_hidden_steps(whole: Platform) -> None:
    flow = await closed(whole, buried="fail(hush)")
    run = await ask(whole.globex, flow)
    assert (run["status"], run["error"], run["error_code"]) == (
        "FAILED",
        "A step failed",
        "script",
    )
    check(run)
    shown = await ask(whole.globex, await closed(whole, last="fail(loud)"))
    assert shown["error"] == "It failed: loud"
    assert shown["output"]["last"]["error"] == "It failed: loud"
    steps = [code("buried", "fail(hush)", "last", throw_on_error=False), code("last", "fail(loud)")]
    both = await whole.globex.discover(await whole.acme.publish(*steps, open=False))
    assert (both["status"], both["error"]) == ("FAILED", "It failed: loud")
    check(both)


async def test_receipts(whole: Platform) -> None:
    flow = await closed(whole, buried="wait(gate)")
    run = await ask(whole.globex, flow, background=True)
    await whole.reached("gate")
    path = f"/workflows/discover/{flow}/runs/{run['id']}"
    answer = await whole.globex.ok("POST", f"{path}/cancel", params={"verbose": "all"})
    assert answer["cancellation"]["interrupted"] == []
    assert answer["cancellation"]["interrupted_hidden"] == 1
    check(answer)


async def test_a_receipt_tells_nothing_of_a_seen_step_s_settings(whole: Platform) -> None:
    flow = await closed(whole, last="wait(gate)")
    run = await ask(whole.globex, flow, background=True)
    await whole.reached("gate")
    path = f"/workflows/discover/{flow}/runs/{run['id']}"
    answer = await whole.globex.ok("POST", f"{path}/cancel", params={"verbose": "all"})
    (told,) = answer["cancellation"]["interrupted"]
    assert (told["key"], told["doing"]) == ("last", "code step")


@pytest.mark.parametrize("key", ["buried", "think", "memo", "tool", "nothing"])
async def test_starts_at_what_is_not_seen_are_one_404(whole: Platform, key: str) -> None:
    flow = await closed(whole)
    run = await ask(whole.globex, flow)
    path = f"/workflows/discover/{flow}/runs"
    started = await whole.globex.ask("POST", path, {"from_step_key": key})
    replayed = await whole.globex.ask("POST", f"{path}/{run['id']}/replay", {"stepKey": key})
    other = await whole.globex.ask("GET", f"{path}/run_nothing")
    assert started.content == replayed.content == other.content
    assert (started.status_code, replayed.status_code) == (404, 404)


@pytest.mark.parametrize("key", ["last", "start"])
async def test_starts_at_what_is_seen(whole: Platform, key: str) -> None:
    flow = await closed(whole)
    run = await ask(whole.globex, flow)
    assert (await ask(whole.globex, flow, from_step_key=key))["status"] == "COMPLETED"
    path = f"/workflows/discover/{flow}/runs/{run['id']}/replay"
    check(await whole.globex.ok("POST", path, {"stepKey": key}))


async def test_its_owner_sees_all_of_its_own_and_nothing_of_theirs(whole: Platform) -> None:
    flow = await closed(whole)
    run = await ask(whole.globex, flow)
    own = await whole.acme.run(flow, input={"q": "y"})
    assert set(own["output"]) == {"start", "buried", "think", "last"}
    through = await ask(whole.acme, flow)
    assert set(through["output"]) == set(own["output"])
    for path in (
        f"/workflows/{flow}/runs/{run['id']}",
        f"/workflows/discover/{flow}/runs/{run['id']}",
    ):
        assert (await whole.acme.ask("GET", path)).status_code == 404
    (caller,) = await whole.acme.ok("GET", f"/workflows/{flow}/callers")
    assert caller["runs_count"] == 1


async def test_what_is_open_shows_its_steps(whole: Platform) -> None:
    flow = await closed(whole)
    await whole.acme.ok("PATCH", f"/workflows/{flow}", {"open": True})
    run = await ask(whole.globex, flow)
    assert set(run["output"]) == {"start", "buried", "think", "last"}
    assert run["workflow_version"]["steps"] != []
