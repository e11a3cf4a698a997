"""Turns: no turn of the loop does more than its budget, whoever asks; nobody waits for ever."""

import asyncio
from collections import Counter

from insula.kit.turns import Turns


class Clock:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self._tick()

    def _tick(self) -> None:
        self.turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        self._next.cancel()


async def _take(turns: Turns, units: int = 1) -> None:
    if (pause := turns.take(units)) is not None:
        await pause


async def test_no_turn_does_more_than_its_budget() -> None:
    turns, clock, done = Turns(10), Clock(), Counter[int]()

    async def work() -> None:
        for _ in range(40):
            await _take(turns)
            done[clock.turn] += 1

    await asyncio.gather(*(work() for _ in range(7)))
    clock.stop()
    assert done.total() == 280
    # The budget is renewed in the middle of one of the clock's turns.
    assert max(done.values()) <= 20
    assert len(done) >= 280 / 10 - 1


async def test_what_was_large_is_paid_for_in_the_turns_after_it() -> None:
    turns, clock = Turns(10), Clock()
    assert turns.take(95) is None
    before = clock.turn
    await _take(turns)
    clock.stop()
    assert clock.turn - before >= 9


async def test_who_came_first_goes_first_and_who_gave_up_is_passed_over() -> None:
    turns, order = Turns(1), []

    async def work(name: str) -> None:
        await _take(turns)
        order.append(name)

    assert turns.take() is None
    tasks = [asyncio.create_task(work(name)) for name in "abcd"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "c", "d"]


async def test_a_turn_that_is_free_costs_no_wait() -> None:
    turns = Turns(5)
    assert [turns.take() for _ in range(5)] == [None] * 5
    assert turns.take() is not None
