"""The watch over the database's clock."""

import pytest

from insula.journal.database_clock import DatabaseClock


class Times:
    """The clock that nobody sets, and the database's beside it."""

    def __init__(self) -> None:
        self.mine = 100.0
        self.apart = 7_000_000
        self.watch = DatabaseClock(lambda: self.mine, 10.0, 4.0)
        self.mine += 4.0

    def ask(self, seconds: float = 0.001) -> bool:
        asked_at = self.mine
        told = int(self.mine * 1000 + seconds * 700) + self.apart
        self.mine += seconds
        return self.watch.is_steady(told, asked_at)


@pytest.fixture
def times() -> Times:
    return Times()


def test_a_clock_that_goes_as_it_should_is_steady(times: Times) -> None:
    for seconds in (0.001, 0.5, 3.0, 0.0, 60.0, 0.001):
        assert times.ask(seconds)
        times.mine += 3600


@pytest.mark.parametrize("step", [-86_400_000, -1_100, 1_100, 86_400_000])
def test_after_a_step_it_is_not_until_it_has_settled(times: Times, step: int) -> None:
    assert times.ask()
    times.apart += step
    assert not times.ask()
    times.mine += 9.9
    assert not times.ask()
    times.mine += 0.2
    assert times.ask()


def test_a_second_step_begins_anew(times: Times) -> None:
    times.ask()
    for _ in range(2):
        times.apart += 5_000
        assert not times.ask()
        times.mine += 9.0
    assert not times.ask()
    times.mine += 2.0
    assert times.ask()


def test_an_answer_that_takes_long_is_no_step(times: Times) -> None:
    assert times.ask()
    assert times.ask(20.0)
    assert times.ask()


def test_a_clock_that_is_brought_right_slowly_is_steady(times: Times) -> None:
    for _ in range(100):
        assert times.ask()
        times.mine += 2.0
        times.apart += 1


def test_at_first_it_is_not_known_what_went_before() -> None:
    times = Times()
    times.mine -= 0.1
    assert not times.ask(0.0)
    times.mine += 0.2
    assert times.ask()
