"""Times outside: ISO 8601 with milliseconds and ``Z``."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from insula.kit.clock import iso, milliseconds, now_ms

DAY = timedelta(days=1)


def test_milliseconds_are_kept() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_769_860_800_123) == "2026-01-31T12:00:00.123Z"


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_what_is_told_is_what_was_meant(ms: int) -> None:
    told = datetime.fromisoformat(iso(ms))
    assert told.tzinfo == UTC
    assert round(told.timestamp() * 1000) == ms


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
@example(datetime.max, 0)
@example(datetime.max, -1)
@example(datetime.min, 1)
@example(datetime(9999, 12, 31, 23, 59, 59, 999_999), 0)
def test_a_time_that_is_read_can_be_told(naive: datetime, offset: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    try:
        ms = milliseconds(moment)
    except OverflowError:
        assert naive - datetime.min < DAY or datetime.max - naive < DAY
    else:
        to_the_millisecond = naive.replace(microsecond=naive.microsecond // 1000 * 1000)
        assert (
            iso(ms)[-13:]
            == f"{to_the_millisecond - timedelta(minutes=offset):%H:%M:%S.%f}"[:-3] + "Z"
        )


def test_now_is_in_milliseconds() -> None:
    before = datetime.now(UTC).timestamp() * 1000
    assert before - 1 <= now_ms() <= datetime.now(UTC).timestamp() * 1000 + 1
