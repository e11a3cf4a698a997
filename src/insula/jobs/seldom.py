"""What others cause, said in the log so that a flood of it does not fill the log."""

import time
from collections import Counter

import structlog

AGAIN_AFTER = 10.0
"""Seconds in which the same trouble is counted and not said again."""

log = structlog.get_logger("insula.jobs")


class Seldom:
    """Warnings, each event at most once in ten seconds: ``times`` says how often it happened since
    the last line. An event's name is one of few, and never made of what came."""

    def __init__(self) -> None:
        self._again_at: dict[str, float] = {}
        self._times: Counter[str] = Counter()

    def warn(self, event: str, **about: object) -> None:
        """Say it, or count it."""
        self._times[event] += 1
        now = time.monotonic()
        if now >= self._again_at.get(event, now):
            self._again_at[event] = now + AGAIN_AFTER
            log.warning(event, times=self._times.pop(event), **about)
