"""Byte for byte what clients get of runs: answers, lists, streams, receipts, errors."""

import asyncio
from pathlib import Path
from typing import Any

from tests.compat.golden import compare
from tests.contract import validate
from tests.runs.platform import Platform, child, code, model, open_platform


def rich() -> list[dict[str, Any]]:
    """Code, a model with a tool, a loop and a branch, one after another."""
    replies = [
        {"tool_calls": [{"name": "add", "input": {"n": 1}, "id": "call_1"}], "credits": 2},
        {"text": "hello", "tokens": 1, "credits": 3},
    ]
    conditions = {"yes": {"condition": "true", "destinations": ["end"], "order": 0}}
    return [
        code("first", 'return {"x": 1}', "say"),
        model("say", replies, "again", provider={"tools": ["add"]}),
        code("add", "return args"),
        model("again", [{"text": "word", "tokens": 1}], "choose", loop="index < 2 ? 1 : null"),
        {"type": "branch", "key": "choose", "conditions": conditions, "else": ["other"]},
        code("end", 'return {"result": "done"}'),
        code("other", "return 0"),
    ]


async def ask(platform: Platform, path: str, body: object = None, method: str = "POST") -> bytes:
    answer = await platform.acme.ask(method, path, body)
    return answer.content


async def test_a_run_in_each_status(platform: Platform) -> None:
    done = await platform.acme.make(*rich())
    run = await platform.acme.ask(
        "POST", f"/workflows/{done}/runs", {"input": {"x": "ü\n"}, "identifier": "mine"}
    )
    compare("run_completed.json", run.content)
    validate(run.json(), "RunSchema")
    failing = await platform.acme.make(code("a", "fail(words)", "b"), code("b", "return 1"))
    compare("run_failed.json", await ask(platform, f"/workflows/{failing}/runs"))
    skipped = await platform.acme.make(code("a", "return 1", conditional="false"))
    compare("run_skipped.json", await ask(platform, f"/workflows/{skipped}/runs"))
    slow = await platform.acme.make(code("a", "return 1", "b"), code("b", "wait(g)"))
    path = f"/workflows/{slow}/runs"
    begun = await platform.acme.run(slow, background=True)
    await platform.reached("g")
    while "b" not in (await platform.acme.ok("GET", f"{path}/{begun['id']}"))["output"]:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.001)
    compare("run_running.json", await ask(platform, f"{path}/{begun['id']}", method="GET"))
    cancel = f"{path}/{begun['id']}/cancel"
    compare("run_cancelled.json", await ask(platform, cancel))
    compare("run_cancelled_verbose.json", await ask(platform, f"{cancel}?verbose=all"))
    draft = {"workflow_version_id": "draft", "retention": 0}
    answer = await platform.acme.ask("POST", path, {**draft, "from_step_key": "a", "timeout": 0.25})
    compare("run_draft_timed_out.json", answer.content)
    erased = f"{path}/{answer.json()['id']}"
    compare("run_erased.json", await ask(platform, erased, method="GET"))


async def test_a_run_that_waits(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(flow, background=True)
        compare(
            "run_pending.json", await ask(platform, f"/workflows/{flow}/runs", {"background": True})
        )
        compare("too_many.json", await ask(platform, f"/workflows/{flow}/runs"))
        await platform.acme.ok("POST", "/runs/cancel")


async def test_a_list(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return input.n"))
    for number in range(2):
        await platform.acme.run(flow, input={"n": number})
    answer = await platform.acme.ask("GET", f"/workflows/{flow}/runs?take=1")
    compare("run_list.json", answer.content)
    assert answer.headers["pagination-count"] == "2"


async def test_streams(platform: Platform) -> None:
    flow = await platform.acme.publish(*rich())
    answer = await platform.acme.ask("POST", f"/workflows/{flow}/runs", {"stream": True})
    compare("run_stream.txt", answer.content)
    (row,) = await platform.rows("SELECT id FROM runs")
    path = f"/workflows/{flow}/runs/{row.id}/stream?from=9"
    compare("run_stream_resumed.txt", await ask(platform, path, method="GET"))
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"open": False})
    closed = await platform.globex.ask("POST", f"/workflows/discover/{flow}/runs", {"stream": True})
    compare("run_stream_closed.txt", closed.content)
    step = {"step": rich()[0], "stream": True}
    compare("step_stream.txt", await ask(platform, "/runs/step", step))


async def test_a_step_and_a_child(platform: Platform) -> None:
    compare("step.json", await ask(platform, "/runs/step", {"step": code("q", "return [1]")}))
    inner = await platform.acme.make(code("z", "return 1"))
    outer = await platform.acme.make(child("o", inner))
    compare("run_with_child.json", await ask(platform, f"/workflows/{outer}/runs"))


async def test_a_receipt_through_the_catalogue(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.publish(child("o", inner))
    run = await platform.globex.discover(outer, background=True)
    await platform.reached("g")
    path = f"/workflows/discover/{outer}/runs/{run['id']}/cancel?verbose=all"
    compare("receipt_hidden_child.json", (await platform.globex.ask("POST", path)).content)


async def test_errors(platform: Platform) -> None:
    fields = {"n": {"type": "number", "order": 0}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": []}
    flow = await platform.acme.make(start)
    path = f"/workflows/{flow}/runs"
    compare("run_bad_input.json", await ask(platform, path, {"input": {"n": "x"}}))
    compare("run_bad_body.json", await ask(platform, path, {"timeout": "soon", "stream": 1}))
    compare("run_bad_start.json", await ask(platform, path, {"from_step_key": "nowhere"}))
    compare("run_not_found.json", await ask(platform, f"{path}/run_none/cancel"))
    begun = await platform.acme.run(flow, input={"n": 1}, retention=0)
    replay = f"{path}/{begun['id']}/replay"
    compare("replay_erased.json", await ask(platform, replay, {"stepKey": "start"}))
