"""When the sweeper comes round: when it is time, and at once when asked, but not without pause."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from insula.runs import pace
from insula.runs.sweeper import Sweeper


class Counting(Sweeper):
    """Sweeps nothing."""

    def __init__(self) -> None:
        super().__init__(cast(Any, SimpleNamespace(nodes=1)), period=3600.0)
        self.count = 0
        self.swept = asyncio.Event()

    async def sweep(self) -> None:
        self.count += 1
        self.swept.set()


@pytest.mark.parametrize(("apart", "sweeps"), [(3600.0, 1), (0.0, 20)])
async def test_who_asks_again_and_again_is_answered_with_pauses(
    apart: float, sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "APART", apart)
    sweeper = Counting()
    running = asyncio.create_task(sweeper.run())
    sweeper.wanted.set()
    await sweeper.swept.wait()
    for _ in range(1_000):
        sweeper.wanted.set()
        await asyncio.sleep(0)
        if sweeper.count == 20:
            break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sweeper.count == sweeps
