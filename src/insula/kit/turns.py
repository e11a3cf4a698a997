"""Turns of the event loop, shared out: work of strangers' making never holds up the rest."""

import asyncio
from collections import deque


class Turns:
    """Lets units of work through, about ``budget`` of them a turn of the loop, whoever asks.

    Those who come too late wait for one of the next turns, first come, first served: between two
    turns the loop looks after everybody else, time limits and cancels among them.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._left = budget
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._counting = False

    def take(self, units: int = 1) -> asyncio.Future[None] | None:
        """Take so many units of this turn; ``None`` if it has room, else what to wait for first.

        Work may be larger than what is left: the turns to come pay for it.
        """
        self._count()
        if self._left > 0 and not self._waiting:
            self._left -= units
            return None
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((place, units))
        return place

    def _count(self) -> None:
        """See to it that the next turn begins with a budget of its own."""
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._counting = False
        self._left = min(self._left + self._budget, self._budget)
        while self._waiting and self._left > 0:
            place, units = self._waiting.popleft()
            if not place.done():  # who waited may have been cancelled
                self._left -= units
                place.set_result(None)
        if self._waiting or self._left < self._budget:
            self._count()
