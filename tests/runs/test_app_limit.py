"""The live runs of one app at all nodes together: exact, and what waits begins when one ends."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runs.cluster_platform import Nodes, open_nodes
from tests.runs.platform import Platform, child, code, open_platform

from insula.runs import pace, repository


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path, app_runs_max=2) as opened:
        yield opened


async def started(platform: Platform) -> int:
    rows = await platform.rows("SELECT count(*) FROM runs WHERE started_at IS NOT NULL")
    return int(rows[0][0])


async def two_live(platform: Platform) -> None:
    async with asyncio.timeout(5):
        while await started(platform) < 2:  # noqa: ASYNC110  # what the database says
            await asyncio.sleep(0.005)


async def over(platform: Platform) -> None:
    query = "SELECT 1 FROM runs WHERE ended_at IS NULL"
    async with asyncio.timeout(5):
        while await platform.rows(query):  # noqa: ASYNC110  # what the database says
            await asyncio.sleep(0.005)


async def test_the_next_run_is_refused_and_another_app_is_not(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"))
    body: dict[str, object] = {}
    path = f"/workflows/{flow}/runs"
    asked = [asyncio.create_task(platform.acme.ask("POST", path, body)) for _ in range(5)]
    for refused in itertools.islice(asyncio.as_completed(asked), 3):
        answer = await refused
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert "INSULA_APP_RUNS_MAX" in answer.json()["message"]
    other = asyncio.create_task(platform.globex.discover(flow))
    async with asyncio.timeout(5):
        while len(platform.services.live) < 3:  # noqa: ASYNC110  # two of one app, one of the other
            await asyncio.sleep(0.005)
    platform.gate("g").opened.set()
    await other
    await asyncio.gather(*asked, return_exceptions=True)
    assert (await platform.acme.ask("POST", path, body)).status_code == 200


async def test_children_run_in_the_place_of_their_root(platform: Platform) -> None:
    below = await platform.acme.make(code("a", "return 1"))
    above = await platform.acme.make(child("x", below), child("y", below), child("z", below))
    ended = await platform.acme.run(above)
    assert ended["status"] == "COMPLETED"


async def test_what_waits_begins_as_others_end(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    runs = [await platform.acme.run(flow, background=True) for _ in range(5)]
    await platform.reached("g")
    await two_live(platform)
    assert (await platform.acme.ask("POST", f"/workflows/{flow}/runs", {})).status_code == 429
    assert await started(platform) == 2
    platform.gate("g").opened.set()
    await over(platform)
    assert await started(platform) == len(runs)


async def test_a_repeated_request_gets_its_run_though_the_app_is_full(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    path, key = f"/workflows/{flow}/runs", {"idempotency-key": "one"}
    asked = asyncio.create_task(platform.acme.ask("POST", path, {}, headers=key))
    await platform.reached("g")
    await platform.acme.run(flow, background=True)
    await two_live(platform)
    assert (await platform.acme.ask("POST", path, {})).status_code == 429
    again = asyncio.create_task(platform.acme.ask("POST", path, {}, headers=key))
    platform.gate("g").opened.set()
    first, second = await asyncio.gather(asked, again)
    assert first.json()["id"] == second.json()["id"]
    assert second.status_code == 200


async def test_all_nodes_together_begin_no_more(
    tmp_path: Path, tables_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)
    async with open_nodes(tmp_path, tables_url) as opened:
        nodes: Nodes = opened
        pair = [await nodes.open(app_runs_max=3) for _ in range(2)]
        flow = await pair[0].acme.make(code("a", "wait(g)"))
        path = f"/workflows/{flow}/runs"
        asked = [
            asyncio.create_task(pair[number % 2].acme.ask("POST", path, {})) for number in range(12)
        ]
        for answer in itertools.islice(asyncio.as_completed(asked), 9):
            assert (await answer).status_code == 429
        live = await pair[0].platform.read(
            lambda c: repository.counters.count_now(c, pair[0].acme.id, "RUNNING", but="WORKFLOW")
        )
        assert live == 3
        waiting = await pair[0].acme.run(flow, background=True)
        assert waiting["status"] == "PENDING"
        for node in pair:
            if "g" in node.platform.sandbox.gates:
                node.platform.gate("g").opened.set()
        await asyncio.gather(*asked)
        for node in pair:
            await node.platform.idle()
            await node.sweeper.sweep()  # what has ended at the other is seen
        async with asyncio.timeout(5):
            while await pair[0].platform.rows("SELECT 1 FROM runs WHERE ended_at IS NULL"):
                for node in pair:
                    if "g" in node.platform.sandbox.gates:
                        node.platform.gate("g").opened.set()
                await asyncio.sleep(0.01)
