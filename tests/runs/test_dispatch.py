"""Queued runs: the apps in turns, as there is room, after a restart too."""

import asyncio
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.runs.platform import Caller, Platform, code, open_platform

from insula.files import resolve
from insula.runs import start

DATABASES = ("sqlite", "postgres")


async def wait_for(platform: Platform, caller: Caller, path: str, status: str) -> Any:
    async with asyncio.timeout(5):
        while True:
            run = await caller.ok("GET", path)
            if run["status"] == status:
                return run
            await asyncio.sleep(0.005)


async def test_apps_take_turns(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.publish(code("a", "wait(g)"))
        note = await platform.acme.publish(code("a", "return input.n"))
        await platform.acme.run(flow, background=True)
        await platform.reached("g")
        for number in range(3):
            await platform.acme.run(note, background=True, input={"n": f"acme{number}"})
        for number in range(2):
            await platform.globex.discover(note, background=True, input={"n": f"globex{number}"})
        platform.gate("g").opened.set()
        async with asyncio.timeout(5):
            while await platform.rows("SELECT 1 FROM runs WHERE ended_at IS NULL"):
                await platform.idle()
        order = await platform.rows(
            "SELECT app_id FROM runs WHERE workflow_id = :flow ORDER BY started_at, ended_at",
            flow=note,
        )
        names = ["acme" if row.app_id == platform.acme.id else "globex" for row in order]
        assert names == ["acme", "globex", "acme", "globex", "acme"]


async def test_the_queue_outlives_a_restart(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(flow, background=True)
        await platform.reached("g")
        waiting = await platform.acme.run(flow, background=True, input={"n": 1})
        callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers, runs_max=1) as platform:
        await platform.reached("g")
        path = f"/workflows/{flow}/runs/{waiting['id']}"
        assert (await platform.acme.ok("GET", path))["status"] == "PENDING"
        platform.gate("g").opened.set()
        ended = await wait_for(platform, platform.acme, path, "COMPLETED")
        assert ended["input"] == {"n": 1}


async def test_what_the_queue_had_no_place_for_is_offered_again(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(flow, background=True)
        await platform.reached("g")
        waiting = await platform.acme.run(flow, background=True)
        assert platform.services.queue.take(lambda _: True) == waiting["id"]
        platform.gate("g").opened.set()
        await platform.idle()
        await platform.sweeper.sweep()
        path = f"/workflows/{flow}/runs/{waiting['id']}"
        await wait_for(platform, platform.acme, path, "COMPLETED")


async def test_the_queue_of_an_app_is_bounded(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1, queue_max=2) as platform:
        flow = await platform.acme.publish(code("a", "wait(g)"))
        await platform.acme.run(flow, background=True)
        await platform.reached("g")
        path, body = f"/workflows/{flow}/runs", {"background": True}
        answers = [await platform.acme.ask("POST", path, body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[2].headers["retry-after"]) >= 1
        assert "INSULA_QUEUE_MAX" in answers[2].json()["message"]
        assert (await platform.globex.discover(flow, background=True))["status"] == "PENDING"
        await platform.acme.ok("POST", "/runs/cancel")
        await platform.globex.ok("POST", "/runs/cancel")


async def test_the_queue_is_bounded_however_many_are_stored_at_once(
    tmp_path: Path, database_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, free = threading.Event(), threading.Event()
    asked = 0

    async def counted(*given: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 6:  # all of them wait for the writer in a moment, and make one group
            asyncio.get_running_loop().call_soon(free.set)
        return await create_waiting(*given)

    def hold(_: Connection) -> None:
        busy.set()
        free.wait(30)

    create_waiting = start.create_waiting
    monkeypatch.setattr(start, "create_waiting", counted)
    settings = {"database_url": database_url, "runs_max": 1, "queue_max": 2}
    async with open_platform(tmp_path, **settings) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(flow, background=True)
        await platform.reached("g")
        holding = platform.services.database.submit(hold)
        await asyncio.to_thread(busy.wait)
        path, body = f"/workflows/{flow}/runs", {"background": True}
        asking = (platform.acme.ask("POST", path, body) for _ in range(6))
        answers = await asyncio.gather(*asking)
        await holding
        assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 4
        await platform.acme.ok("POST", "/runs/cancel")


async def test_a_caller_s_limit_holds_in_the_queue(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=4, runs_share=0.5) as platform:
        flow = await platform.acme.publish(code("a", "wait(g)"), caller_limit=1)
        free = await platform.acme.publish(code("a", "wait(f)"))
        await platform.globex.discover(flow, background=True)
        await platform.globex.discover(free, background=True)
        waiting = await platform.globex.discover(flow, background=True)
        assert waiting["status"] == "PENDING"
        await asyncio.gather(platform.reached("g"), platform.reached("f"))
        platform.gate("f").opened.set()
        async with asyncio.timeout(5):
            while len(platform.services.live) > 1:  # noqa: ASYNC110  # the end of one of two
                await asyncio.sleep(0.001)
        await platform.sweeper.sweep()
        path = f"/workflows/discover/{flow}/runs/{waiting['id']}"
        assert (await platform.globex.ok("GET", path))["status"] == "PENDING"
        platform.gate("g").opened.set()
        await platform.idle()
        await platform.sweeper.sweep()
        await wait_for(platform, platform.globex, path, "COMPLETED")


async def nothing(*_: object) -> None:
    return None


@pytest.mark.parametrize("known", [True, False])
async def test_what_was_sent_for_a_run_that_is_refused_goes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Where it is known before that there is no room, it is not even stored."""
    stored: list[object] = []

    async def storing(*given: Any, **named: Any) -> Any:
        stored.append(given)
        return await store_file(*given, **named)

    store_file = resolve.store_file
    monkeypatch.setattr(resolve, "store_file", storing)
    if not known:
        monkeypatch.setattr(start, "check_room", nothing)
    async with open_platform(tmp_path, runs_max=1, queue_max=1) as platform:
        fields = {"doc": {"type": "file", "order": 0}}
        flow = await platform.acme.make(code("a", "wait(g)"), input=fields)
        sent = {"doc": "data:text/plain;base64," + b64encode(b"some text").decode()}
        path, body = f"/workflows/{flow}/runs", {"background": True, "input": sent}
        answers = [await platform.acme.ask("POST", path, body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429], answers[0].text
        held = await platform.rows("SELECT DISTINCT run_id FROM files")
        assert {row.run_id for row in held} == {one.json()["id"] for one in answers[:2]}
        assert len(stored) == (2 if known else 3)
        await platform.acme.ok("POST", "/runs/cancel")
