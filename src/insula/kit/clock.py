"""Time as the product tells it: Unix milliseconds inside, ISO 8601 with ``Z`` outside."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

DAY_MS = 24 * 60 * 60 * 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def milliseconds(moment: datetime) -> int:
    """Return a time with its offset in Unix milliseconds.

    Raises:
        OverflowError: ``iso`` could not tell it: in UTC it is not of the years 1 to 9999.
    """
    return (moment.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)


def iso(ms: int) -> str:
    """Format Unix milliseconds as ``2026-01-31T12:00:00.000Z``."""
    seconds, millis = divmod(ms, 1000)
    return f"{_to_the_second(seconds)}.{millis:03d}Z"


@lru_cache(256)
def _to_the_second(seconds: int) -> str:
    """Most times of an answer lie within a few seconds, and formatting is slow."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
