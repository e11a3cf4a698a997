"""One step by itself: run, streamed, refused, and gone with its caller."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.contract import validate
from tests.runs.platform import Platform, code, model, open_platform
from tests.runs.test_stream import Wire

PATH = "/runs/step"


async def test_a_step_runs_and_nothing_is_stored(platform: Platform) -> None:
    answer = await platform.acme.ok("POST", PATH, {"step": code("q", "return 2", "nowhere")})
    validate(answer, "RunStepSchema")
    assert (answer["status"], answer["output"], answer["key"]) == ("COMPLETED", 2, "q")
    failed = await platform.acme.ok("POST", PATH, {"step": {"type": "code", "code": "fail(x)"}})
    assert (failed["status"], failed["error"]) == ("FAILED", "It failed: x")
    for table in ("runs", "run_data", "run_events"):
        assert await platform.rows(f"SELECT * FROM {table}") == []
    assert platform.services.live.has_room(platform.acme.id)


async def test_a_branch_runs_without_what_it_leads_to(platform: Platform) -> None:
    step = {
        "type": "branch",
        "key": "b",
        "conditions": {"yes": {"condition": "true", "destinations": ["x"], "order": 0}},
        "else": ["y"],
    }
    answer = await platform.acme.ok("POST", PATH, {"step": step})
    assert answer["output"] == {"yes": True}


async def test_a_step_is_streamed(platform: Platform) -> None:
    step = model("m", [{"text": "hello", "tokens": 1}])
    told = await platform.acme.stream(PATH, {"step": step, "stream": True})
    assert [(one.id, one.event) for one in told] == [(1, "step"), (2, "chunk"), (3, "step")]
    assert told[1].data["output"] == {"model": "m", "provider": "mock", "message": "hello"}
    assert (told[2].data["status"], told[2].data["output"]["message"]) == ("COMPLETED", "hello")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "note", "key": "n", "note": "x"},
        {"type": "workflow", "key": "w", "workflow_id": "work_x"},
        {"type": "nothing", "key": "x"},
        {"type": "code", "key": "1c", "code": "return 1"},
        {},
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_does_not_run_by_itself_is_400(
    platform: Platform, step: dict[str, Any], stream: bool
) -> None:
    answer = await platform.acme.ask("POST", PATH, {"step": step, "stream": stream})
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"]


@pytest.mark.parametrize("stream", [True, False])
async def test_its_caller_s_going_away_stops_it(platform: Platform, stream: bool) -> None:
    caller = Wire(platform.acme, "POST", PATH, {"step": code("q", "wait(g)"), "stream": stream})
    serving = asyncio.ensure_future(caller.serve(platform.insula.asgi))
    await platform.reached("g")
    caller.leave()
    async with asyncio.timeout(5):
        await serving
    assert platform.services.live.has_room(platform.acme.id)
    assert not platform.services.live._by_app


async def test_it_takes_a_place(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        first = asyncio.ensure_future(
            platform.acme.ok("POST", PATH, {"step": code("q", "wait(g)")})
        )
        await platform.reached("g")
        for stream in (True, False):
            body = {"step": code("q", "return 1"), "stream": stream}
            assert (await platform.acme.ask("POST", PATH, body)).status_code == 429
        platform.gate("g").opened.set()
        await first
        await platform.acme.ok("POST", PATH, {"step": code("q", "return 1")})


async def test_it_takes_no_longer_than_a_run(tmp_path: Path) -> None:
    async with open_platform(tmp_path, timeout_run=0.05) as platform:
        answer = await platform.acme.ok("POST", PATH, {"step": code("q", "wait(g)")})
        assert answer["status"] == "CANCELLED"
