"""Whether the database's clock was set a moment ago: then those who live look dead.

Leases stand in the database's time. A step of its clock, or a failover to a server whose clock is
ahead, makes each of them look as if it had run out long ago. So nobody is declared dead until all
who live have had the time to renew.
"""

from collections.abc import Callable

import structlog

STEP_MS = 1_000
"""What is less does no harm: a lease counts as lapsed no earlier than so long after its expiry."""

log = structlog.get_logger(__name__)


class DatabaseClock:
    """Compares the database's clock with one of this machine that nobody sets.

    ``clock`` gives its seconds; after a step it takes ``settles_after`` seconds until the times in
    the database can be relied upon, and ``starts_after`` after a start.
    """

    def __init__(
        self, clock: Callable[[], float], settles_after: float, starts_after: float
    ) -> None:
        self.clock = clock
        self._settles_after = settles_after
        self._apart: tuple[float, float] | None = None
        # What it was before this process first asked is not known: a server that is ahead may have
        # taken the other's place just now. Who lives has renewed after it by then.
        self._settled_at = clock() + starts_after

    def is_steady(self, now_ms: int, asked_at: float) -> bool:
        """Say whether the database's clock goes as it should; ``now_ms`` is what it has just said
        to who asked at ``asked_at``, in seconds of ``clock``."""
        answered_at = self.clock()
        # It was read at some moment in between, however long that was.
        least, most = now_ms - answered_at * 1000, now_ms - asked_at * 1000
        before, self._apart = self._apart, (least, most)
        if before is not None and (least > before[1] + STEP_MS or most < before[0] - STEP_MS):
            self._settled_at = answered_at + self._settles_after
            log.warning("database.clock_set", by_ms=round(least - before[0]))
        return answered_at >= self._settled_at
