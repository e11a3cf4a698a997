"""The process dies in the midst of many runs: nothing is lost, nothing is stuck, nothing that had
finished is done again.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.acceptance.conftest import SOAK, Serve
from tests.acceptance.harness import Caller, Served, clients, shaped
from tests.acceptance.journeys import (
    LOOPS,
    UNITS,
    Journey,
    Journeys,
    Remains,
    examine,
    keys_of,
    prepare,
    request_cancel,
    requested,
)
from tests.acceptance.loopback import Loopback
from tests.acceptance.processes import alive, family, wait_until

MIX = {"chain": 40, "code": 30, "loop": 35, "model": 25, "tool": 20, "child": 35, "hang": 15}
"""200 runs. Those that hang are the ones whose cancel had been requested."""
LIVE = 150
CONTINUES_WITHIN = 10.0 if SOAK else 60.0
"""Seconds; beside other work it takes as long as it takes, but not for ever."""


class Ordeal:
    """A server, the runs in it, and what is known about each."""

    def __init__(self, served: Served, loopback: Loopback, journeys: Journeys) -> None:
        self.served = served
        self.loopback = loopback
        self.journeys = journeys
        self.deaths = 0

    async def begin(self, mix: dict[str, int]) -> None:
        """Start the runs, mixed."""
        kinds = [kind for kind, count in mix.items() for _ in range(count)]
        kinds = [kinds[i * 61 % len(kinds)] for i in range(len(kinds))]  # 61 and 200 share nothing
        await asyncio.gather(*(self.journeys.start(kind) for kind in kinds))

    async def in_the_midst(self, requests: int) -> None:
        await self.loopback.until(lambda: len(self.loopback.arrivals) >= requests)

    async def die(self) -> Remains:
        """``kill -9``; soon nothing of it lives. Returns what stands on the disk."""
        members = family(self.served.pid)
        assert members, "there should be workers"
        await asyncio.to_thread(self.served.kill)
        self._all_gone(members)
        self.deaths += 1
        return examine(self.served.data)

    async def stop(self) -> Remains:
        """SIGTERM; it ends in good order."""
        members = family(self.served.pid)
        assert await asyncio.to_thread(self.served.stop) == 0, self.served.log
        self._all_gone(members)
        self.deaths += 1
        return examine(self.served.data)

    def _all_gone(self, members: set[int]) -> None:
        wait_until(
            lambda: not any(alive(pid) for pid in members) and not family(self.served.pid),
            10.0,
            "the end of every process",
        )

    async def restart(self) -> None:
        """Start again on the same folder."""
        await asyncio.to_thread(self.served.start)

    async def all_ended(self) -> float:
        """Wait until no run is live; return how long that took."""
        began = time.monotonic()
        caller = self.journeys.caller
        while await self._live(caller):
            assert time.monotonic() - began < CONTINUES_WITHIN, "runs are stuck"
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def _live(self, caller: Caller) -> int:
        answers = [
            await caller.ask("GET", f"runs?status={status}&take=1")
            for status in ("RUNNING", "PENDING")
        ]
        return sum(int(answer.headers["pagination-count"]) for answer in answers)

    async def check(self, journey: Journey) -> None:
        """Check one run's end against the contract and against what it should have done."""
        caller = self.journeys.caller
        run = await caller.ok("GET", f"{journey.path}/{journey.run_id}")
        shaped(run, "RunSchema")
        if journey.kind == "hang":
            assert run["status"] == "CANCELLED"
            return
        assert run["status"] == "COMPLETED", (journey, run)
        assert all(step["status"] == "COMPLETED" for step in run["output"].values())
        _check_output(journey, run["output"])

    def check_requests(self, remains: list[Remains], before: list[int]) -> None:
        """Every unit was asked for once, an interrupted one at most once more a death."""
        counted, keys = requested(self.loopback), keys_of(self.loopback)
        for journey in self.journeys.made:
            if journey.kind == "hang":
                continue
            for unit in journey.units:
                assert 1 <= counted[unit] <= 1 + self.deaths, (unit, counted[unit])
                assert len(keys[unit]) == 1, unit
                assert None not in keys[unit]
        whole = [key for unit in keys.values() for key in unit]
        assert len(whole) == len(set(whole))
        for left, until in zip(remains, before, strict=True):
            again = {arrival.tag for arrival in self.loopback.arrivals[until:]} & left.finished
            assert not again, f"finished, and done again: {sorted(again)[:5]}"


def _check_output(journey: Journey, output: dict[str, Any]) -> None:
    if journey.kind == "loop":
        tags = [one["body"]["tag"] for one in output["each"]["output"]]
        assert tags == journey.units
        assert len(tags) == LOOPS
    elif journey.kind == "tool":
        assert [call["status"] for call in output["asks"]["calls"]] == ["COMPLETED"] * 3
    elif journey.kind == "child":
        below = output["calls"]["output"]
        assert below["status"] == "COMPLETED"
        assert [below["output"][key]["output"]["body"]["tag"] for key in "xyz"] == journey.units
    elif journey.kind == "model":
        assert output["speaks"]["output"]["message"] == "word " * 40
    else:
        assert len(output) == len(UNITS[journey.kind])


@pytest.fixture
async def ordeal(serve: Serve, loopback: Loopback) -> AsyncIterator[Ordeal]:
    # Without time to end: what runs at a stop is to be found again, not awaited.
    served = serve(INSULA_RUNS_MAX=str(LIVE), INSULA_RUNS_SHARE="1", INSULA_DRAIN_SECONDS="0")
    async with clients(served) as made:
        journeys = await prepare(await made.app("Acme"), loopback.url)
        yield Ordeal(served, loopback, journeys)


async def _finish(ordeal: Ordeal, remains: list[Remains], before: list[int]) -> None:
    took = await ordeal.all_ended()
    print(f"{len(remains[-1].live)} runs went on and ended in {took:.1f} s")  # noqa: T201
    for journey in ordeal.journeys.made:
        await ordeal.check(journey)
    ordeal.check_requests(remains, before)


@pytest.mark.parametrize("deaths", [1, 2] if SOAK else [1])
async def test_a_kill_in_the_midst_of_200_runs(ordeal: Ordeal, deaths: int) -> None:
    await ordeal.begin(MIX)
    await ordeal.in_the_midst(250)
    hanging = ordeal.journeys.of("hang")
    remains, before = [], []
    for death in range(deaths):
        remains.append(await ordeal.die())
        before.append(await ordeal.loopback.barrier())
        request_cancel(ordeal.served.data, [journey.run_id for journey in hanging])
        await ordeal.restart()
        if death + 1 < deaths:
            await ordeal.in_the_midst(before[-1] + 100)
    assert len(remains[0].live) > 100
    assert len(remains[0].finished) > 50
    await _finish(ordeal, remains, before)
    again = ordeal.loopback.arrivals[before[0] :]
    assert not [a for a in again if a.path.startswith("/hang/")], "a cancelled run began again"


async def test_a_stop_and_a_start_go_on_with_what_ran(ordeal: Ordeal) -> None:
    await ordeal.begin({**dict.fromkeys(MIX, 6), "hang": 0})
    await ordeal.in_the_midst(40)
    remains = await ordeal.stop()
    before = await ordeal.loopback.barrier()
    assert len(remains.live) > 20
    await ordeal.restart()
    await _finish(ordeal, [remains], [before])


async def test_who_waits_when_it_stops_is_told_so(ordeal: Ordeal) -> None:
    caller, path = ordeal.journeys.caller, ordeal.journeys.paths["hang"]
    waiting = asyncio.create_task(caller.ask("POST", path, {"input": {"n": 1}}))
    await ordeal.loopback.arrived("1.stuck.")
    await ordeal.stop()
    answer = await waiting
    assert answer.status == 503
    assert "retry-after" in answer.headers
    await ordeal.restart()
    await ordeal.loopback.arrived("1.stuck.", 2)
    (run,) = await caller.ok("GET", path)
    ended = await caller.ok("POST", f"{path}/{run['id']}/cancel")
    assert ended["status"] == "CANCELLED"


async def test_a_second_server_is_refused(ordeal: Ordeal) -> None:
    other = Served(ordeal.served.data, ordeal.served.settings)
    other.url = ordeal.served.url
    with pytest.raises(AssertionError, match=r"(?i)lock|holds|another"):
        await asyncio.to_thread(other.start)
    assert other.process is not None
    assert other.process.returncode == 7
    assert (await ordeal.journeys.caller.ask("GET", "/readyz")).status == 200
