"""Times outside: ISO 8601 with milliseconds and ``Z``."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from insula.kit.clock import iso, now_ms


def test_milliseconds_are_kept() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_769_860_800_123) == "2026-01-31T12:00:00.123Z"


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_what_is_told_is_what_was_meant(ms: int) -> None:
    told = datetime.fromisoformat(iso(ms))
    assert told.tzinfo == UTC
    assert round(told.timestamp() * 1000) == ms


def test_now_is_in_milliseconds() -> None:
    before = datetime.now(UTC).timestamp() * 1000
    assert before - 1 <= now_ms() <= datetime.now(UTC).timestamp() * 1000 + 1
