"""Ticks: none twice, none lost, whatever the clock, the time zone or the server does."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.engine.timetable import (
    ALL_MAX,
    COUNTED_MAX,
    ON_TIME_MS,
    BadTimetable,
    Due,
    Policy,
    Timetable,
    check,
    due,
    moment_of,
    zone_of,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Africa/Cairo", "Australia/Lord_Howe")
CRONS = (
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0,30 1-3 * * *",
    "*/5 0 * * *",
    "15 */2 * * 1-5",
    "0 0 29 2 *",
    "@hourly",
)

timetables = st.builds(
    lambda cron, zone: Timetable(cron=cron, timezone=zone),
    st.sampled_from(CRONS),
    st.sampled_from(ZONES),
) | st.builds(
    lambda every, anchor: Timetable(every=every, anchor=anchor),
    st.integers(10, 100_000),
    st.integers(1_700_000_000_000, 1_800_000_000_000),
)
moments = st.integers(1_700_000_000_000, 1_800_000_000_000)


def at(text: str, zone: str = "UTC") -> int:
    return moment_of(text, zone)


def local(tick: int, zone: str) -> str:
    return datetime.fromtimestamp(tick / 1000, UTC).astimezone(ZoneInfo(zone)).isoformat()


@given(timetables, moments)
@settings(max_examples=150)
def test_ticks_rise_and_chain(timetable: Timetable, moment: int) -> None:
    ticks = list(islice(timetable.ticks(moment), 20))
    assert ticks
    assert ticks[0] > moment
    assert all(one < following for one, following in pairwise(ticks))
    chained, last = [], moment
    for _ in ticks:
        following = timetable.after(last)
        assert following is not None
        chained.append(last := following)
    assert chained == ticks
    assert timetable.after(ticks[0] - 1) == ticks[0]


@given(
    timetables,
    moments,
    st.lists(st.integers(-3 * HOUR, 30 * HOUR), min_size=1, max_size=12),
    st.sampled_from(("skip", "once", "all")),
)
@settings(max_examples=150)
def test_no_tick_twice_and_none_lost(
    timetable: Timetable, begun: int, steps: list[int], policy: Policy
) -> None:
    """However the clock goes on, stands or goes back: ticks rise, and those that have no run are
    counted where the policy starts one."""
    next_at = timetable.after(begun)
    now, fired, told = begun, [], 0
    for step in steps:
        now += step
        while next_at is not None and next_at <= now:
            found = due(timetable, next_at, now, policy)
            assert found.next_at is not None
            assert found.next_at > next_at
            if found.tick is not None:
                assert next_at <= found.tick <= now
                fired.append(found.tick)
                if policy == "skip":
                    assert now - found.tick <= ON_TIME_MS
            told += found.missed
            next_at = found.next_at
    assert fired == sorted(set(fired))
    assert next_at is not None
    passed = 0
    for tick in timetable.ticks(begun):
        if tick >= next_at or passed > COUNTED_MAX:
            break
        passed += 1
    if passed <= COUNTED_MAX:
        assert len(fired) + told == passed


def test_a_time_that_the_clock_leaps_over_comes_right_after() -> None:
    """As cron does: 02:30 does not exist on the last Sunday of March, and its job runs at 03:00."""
    timetable = Timetable(cron="30 2 * * *", timezone="Europe/Berlin")
    ticks = islice(timetable.ticks(at("2026-03-28T00:00:00Z")), 3)
    assert [local(tick, "Europe/Berlin") for tick in ticks] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_comes_twice_is_one_tick() -> None:
    timetable = Timetable(cron="30 2 * * *", timezone="Europe/Berlin")
    ticks = list(islice(timetable.ticks(at("2026-10-24T12:00:00Z")), 2))
    assert [local(tick, "Europe/Berlin") for tick in ticks] == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    inside_the_second_coming = at("2026-10-25T01:10:00Z")
    assert timetable.after(inside_the_second_coming) == ticks[1]


def test_every_few_minutes_means_real_minutes() -> None:
    timetable = Timetable(cron="*/30 * * * *", timezone="Europe/Berlin")
    for night in ("2026-03-29", "2026-10-25"):
        ticks = islice(timetable.ticks(at(f"{night}T00:00:00Z")), 6)
        assert {b - a for a, b in pairwise(ticks)} == {30 * MINUTE}


def test_intervals_count_from_their_anchor() -> None:
    timetable = Timetable(every=10, anchor=1_000)
    assert list(islice(timetable.ticks(0), 2)) == [11_000, 21_000]
    assert timetable.after(11_000) == 21_000
    assert timetable.after(20_999) == 21_000


def test_a_single_time_comes_once() -> None:
    timetable = Timetable(at=5_000)
    assert timetable.after(4_999) == 5_000
    assert timetable.after(5_000) is None
    assert due(timetable, 5_000, 5_000, "once") == Due(5_000, 0, None)
    assert due(timetable, 5_000, 5_000 + HOUR, "once") == Due(5_000, 0, None)
    assert due(timetable, 5_000, 5_000 + HOUR, "skip") == Due(None, 1, None)


def test_what_becomes_of_missed_ticks() -> None:
    timetable = Timetable(cron="0 * * * *")
    first, now = at("2026-01-01T01:00:00Z"), at("2026-01-01T05:10:00Z")
    last, following = at("2026-01-01T05:00:00Z"), at("2026-01-01T06:00:00Z")
    assert due(timetable, first, now, "once") == Due(last, 4, following)
    assert due(timetable, first, now, "skip") == Due(None, 5, following)
    assert due(timetable, first, last + ON_TIME_MS, "skip") == Due(last, 4, following)
    assert due(timetable, first, now, "all") == Due(first, 0, first + HOUR)


@pytest.mark.parametrize(
    "timetable", [Timetable(cron="* * * * *"), Timetable(every=60, anchor=0)], ids=["cron", "every"]
)
def test_after_years_it_makes_up_for_the_last_hundred(timetable: Timetable) -> None:
    first, now = at("2020-01-01T00:00:00Z"), at("2026-01-01T00:00:30Z")
    last = now // MINUTE * MINUTE
    found = due(timetable, first, now, "all")
    assert found.tick == last - (ALL_MAX - 1) * MINUTE
    assert found.missed == COUNTED_MAX - ALL_MAX + 1
    assert due(timetable, first, now, "once") == Due(last, COUNTED_MAX, last + MINUTE)
    rest, next_at = 1, found.next_at
    while next_at is not None and next_at <= now:
        found = due(timetable, next_at, now, "all")
        assert found.missed == 0
        rest, next_at = rest + 1, found.next_at
    assert rest == ALL_MAX


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../x", "/etc/x", "America", "localtime"])
def test_zones_are_names_of_zones(name: str) -> None:
    with pytest.raises(BadTimetable, match="Europe/Berlin"):
        zone_of(name)


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "@reboot",
        "0 0 30 2 *",
        "0 0 */31 * 1#2",
        "٣ * * * *",
    ],
)
def test_cron_is_checked(cron: str) -> None:
    with pytest.raises(BadTimetable) as caught:
        check(Timetable(cron=cron))
    assert caught.value.part == "cron"


@pytest.mark.parametrize("every", [0, 9, 367 * 24 * 3600])
def test_intervals_have_bounds(every: int) -> None:
    with pytest.raises(BadTimetable, match="10 to"):
        check(Timetable(every=every))


def test_times_without_a_zone_are_local() -> None:
    assert at("2026-07-01T12:00", "Europe/Berlin") == at("2026-07-01T10:00:00Z")
    assert at("2026-07-01T12:00:00.5+01:00") - at("2026-07-01T11:00:00Z") == 500
    assert timedelta(milliseconds=at("1970-01-01T00:00:01Z")) == timedelta(seconds=1)
    with pytest.raises(BadTimetable, match="2026-01-31"):
        at("tomorrow")
