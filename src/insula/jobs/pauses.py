"""How long to wait before something is opened again: longer each time, unless it held a while."""

import random
import time

PAUSES = (0.05, 1.0)
"""Seconds between attempts to open: the first, and the longest after doubling."""
LASTED = 5.0
"""Seconds after which a connection counts as one that held: the next pause is the first again."""


class Pauses:
    """The pauses of one connection. One that opens and breaks at once is opened less and less
    often, as one that does not open."""

    def __init__(self) -> None:
        self._next, self._longest = PAUSES
        self._up_at: float | None = None

    def up(self) -> None:
        """Note that it is open now."""
        self._up_at = time.monotonic()

    def next(self) -> float:
        """Return the seconds to wait, now that it is not open, a little different at each node."""
        if self._up_at is not None and time.monotonic() - self._up_at >= LASTED:
            self._next = PAUSES[0]
        self._up_at = None
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
