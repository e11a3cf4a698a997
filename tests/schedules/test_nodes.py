"""Several processes look at the same schedules: each tick has one run, whoever takes it, and
whoever dies in the midst.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runs.cluster_platform import Node, Nodes, open_nodes
from tests.runs.platform import code
from tests.schedules import stage
from tests.schedules.stage import HOUR, MINUTE, Clock, ended

from insula.journal import lease
from insula.runs import pace

SCHEDULES = 6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
async def nodes(
    tmp_path: Path, tables_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Nodes]:
    monkeypatch.setattr(lease, "RENEWED_EVERY", 3600)  # so nothing may take longer than the lease
    monkeypatch.setattr(lease, "SECONDS", 60.0)
    async with open_nodes(tmp_path, tables_url) as opened:
        yield opened


async def make(node: Node, **more: object) -> None:
    flow = await node.acme.make(code("a", "return 1"))
    body = {"workflow_id": flow, "every": 3600, **more}
    for _ in range(SCHEDULES):
        await node.acme.ok("POST", "/schedules", body)


async def look(*nodes: Node) -> None:
    """Let all of them look at the same time, twice each."""
    await asyncio.gather(*(stage.look(node.services) for node in (*nodes, *nodes)))


@pytest.mark.parametrize(("policy", "each"), [("once", 1), ("all", 4), ("skip", 0)])
async def test_two_processes_start_one_run_a_tick(
    nodes: Nodes, clock: Clock, policy: str, each: int
) -> None:
    one, two = await nodes.open(), await nodes.open()
    await make(one, missed=policy)
    clock.step(4 * HOUR + 10 * MINUTE)
    await look(one, two)
    runs = await ended(one.platform, one.acme, each * SCHEDULES)
    ticks = {(run["identifier"], run["trigger"]["scheduled_at"]) for run in runs}
    assert len(ticks) == len(runs) == each * SCHEDULES
    rows = await two.platform.rows("SELECT runs, last_error FROM schedules")
    assert [row.runs for row in rows] == [each] * SCHEDULES
    clock.step(50 * MINUTE + 5)  # nothing of what was dealt with comes again; the next tick does
    await look(two, one)
    await ended(one.platform, one.acme, (each + 1) * SCHEDULES)


async def test_what_a_dead_node_has_started_by_the_clock_goes_on_at_another(
    nodes: Nodes, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 0.05)
    one, two = await nodes.open(), await nodes.open()
    flow = await one.acme.make(code("a", "wait(g)"))
    made = await one.acme.ok("POST", "/schedules", {"workflow_id": flow, "every": 3600})
    two.services.draining = True  # the first one takes the tick
    clock.step(HOUR + 10)
    await look(one)
    await one.platform.reached("g")
    two.services.draining = False
    await one.lapse()
    await two.platform.reached("g")
    for node in (one, two):
        node.platform.gate("g").opened.set()
    (run,) = await ended(two.platform, two.acme, 1)
    assert (run["status"], run["identifier"]) == ("COMPLETED", made["id"])
    (row,) = await two.platform.rows("SELECT owner FROM runs")
    assert row.owner == two.services.token
    await look(two, one)
    assert len(await two.platform.rows("SELECT id FROM runs")) == 1
