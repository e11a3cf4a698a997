"""Cancel against completion: whoever wins, there is one end, and everybody is told the same."""

import asyncio
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Caller, Clients, Event
from tests.acceptance.loopback import Loopback

RUNS = 2_000
"""In the short form all together; in the long form so many must end each way."""
AT_ONCE = 16
SAID = {"role": "user", "content": "say something"}
KINDS = ("code", "http", "model", "loop", "child")


@dataclass(slots=True)
class Sweep:
    """Delays around the moment when a kind of run completes: as many before it as after it."""

    middle: float = 0.01
    ends: Counter[str] = field(default_factory=Counter)

    def next(self, chance: random.Random) -> float:
        """Return the next delay: mostly near the middle, some far away."""
        return max(0.0, self.middle * chance.triangular(0.0, 2.0, 1.0))

    def learn(self, status: str) -> None:
        """Move the middle towards where both ends are as likely."""
        self.ends[status] += 1
        self.middle *= 0.97 if status == "COMPLETED" else 1.03
        self.middle = min(max(self.middle, 0.0005), 0.5)


def _steps(kind: str, url: str, child: str) -> list[dict[str, Any]]:
    script = {"replies": [{"text": "a few words", "token_delay_ms": 1}]}
    asked = {"provider": "mock", "model": "m", "messages": [SAID], "mock": script}
    steps: dict[str, dict[str, Any]] = {
        "code": {"type": "code", "code": "await util.sleep(4); return 1"},
        "http": {"type": "http_request", "method": "GET", "url": f"{url}/slow/3/{{{{input.tag}}}}"},
        "model": {"type": "model", "provider": asked},
        "loop": {"type": "code", "code": "return index", "loop": "index < 3 ? index + 1 : null"},
        "child": {"type": "workflow", "workflow_id": child, "input": {}},
    }
    last = {"type": "code", "key": "last", "code": "return 1"}
    return [{"key": "only", "destinations": ["last"], **steps[kind]}, last]


class Races:
    """The workflows that race, and what became of their runs."""

    def __init__(self, caller: Caller, paths: dict[str, str]) -> None:
        self.caller = caller
        self.paths = paths
        self.sweeps = {kind: Sweep() for kind in paths}
        self.numbers = itertools.count()
        self.chance = random.Random(20260131)

    def enough(self) -> bool:
        """Say whether as many runs have ended each way as were wanted."""
        if not SOAK:
            return sum(sweep.ends.total() for sweep in self.sweeps.values()) >= RUNS
        ways = ("COMPLETED", "CANCELLED")
        return all(sum(s.ends[way] for s in self.sweeps.values()) >= RUNS for way in ways)

    async def run(self) -> None:
        """Race until there is enough, some at the same time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        while not self.enough():
            number = next(self.numbers)
            kind = KINDS[number % len(KINDS)]
            sweep = self.sweeps[kind]
            race = self._streamed if number % 2 else self._in_background
            sweep.learn(await race(self.paths[kind], sweep.next(self.chance), number))

    async def _in_background(self, path: str, delay: float, number: int) -> str:
        body = {"input": {"tag": f"race-{number}"}, "background": True}
        run = await self.caller.ok("POST", path, body)
        await asyncio.sleep(delay)
        answer = await self.caller.ok("POST", f"{path}/{run['id']}/cancel")
        async with self.caller.stream(f"{path}/{run['id']}/stream?from=0", method="GET") as late:
            events = await late.to_the_end()
        return await self._judge(path, answer, events)

    async def _streamed(self, path: str, delay: float, number: int) -> str:
        body = {"input": {"tag": f"race-{number}"}, "stream": True}
        async with self.caller.stream(path, body) as stream:
            run_id = await stream.run_id()
            await asyncio.sleep(delay)
            answer = await self.caller.ok("POST", f"{path}/{run_id}/cancel")
            events = await stream.to_the_end()
        return await self._judge(path, answer, events)

    async def _judge(self, path: str, answer: dict[str, Any], events: list[Event]) -> str:
        status: str = answer["status"]
        assert status in ("COMPLETED", "CANCELLED")
        assert await self.caller.ok("GET", f"{path}/{answer['id']}") == answer
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert [event.name for event in events].count("run") == 2
        assert events[-1].name == "run"
        assert events[-1].data == answer
        expected = {"COMPLETED"} if status == "COMPLETED" else {"COMPLETED", "CANCELLED"}
        assert {step["status"] for step in answer["output"].values()} <= expected
        if status == "COMPLETED":
            assert answer["output"]["last"]["status"] == "COMPLETED"
        return status


@pytest.fixture
async def races(callers: Clients, loopback: Loopback) -> Races:
    caller = await callers.app("Acme")
    child = await caller.push([{"type": "code", "key": "only", "code": "return 1"}])
    paths = {
        kind: f"workflows/{await caller.push(_steps(kind, loopback.url, child))}/runs"
        for kind in KINDS
    }
    return Races(caller, paths)


@pytest.mark.timeout(3600 if SOAK else 240)
async def test_cancel_and_completion_never_both_win(races: Races) -> None:
    await races.run()
    ends: Counter[str] = sum((sweep.ends for sweep in races.sweeps.values()), Counter())
    print({kind: dict(sweep.ends) for kind, sweep in races.sweeps.items()})  # noqa: T201
    assert set(ends) == {"COMPLETED", "CANCELLED"}
    for way in ("COMPLETED", "CANCELLED"):
        assert ends[way] >= (RUNS if SOAK else RUNS / 5)
    path = next(iter(races.paths.values()))
    assert await races.caller.ok("GET", "runs?status=RUNNING") == []
    assert await races.caller.ok("GET", "runs?status=PENDING") == []
    counted = await races.caller.ask("GET", f"{path}?status=CANCELLED")
    kind = KINDS[0]
    assert int(counted.headers["pagination-count"]) == races.sweeps[kind].ends["CANCELLED"]
