"""Places are shared as promised, whatever comes in whatever order."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from insula.adapters.sandbox.shares import Shares, Ticket

TICKETS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40)


def ticket(app_id: str, condition: bool = False) -> Ticket:
    loop = asyncio.new_event_loop()
    try:
        return Ticket(app_id, (app_id, app_id), "quickjs", condition, loop.create_future())
    finally:
        loop.close()


def drain(shares: Shares) -> list[Ticket]:
    granted = []
    while (found := shares.next(lambda _: True)) is not None:
        shares.withdraw(found)
        shares.enter(found.app_id, found.condition)
        granted.append(found)
    return granted


def test_an_app_gets_its_share_and_no_more() -> None:
    shares = Shares(8, 0.5, 1)
    for _ in range(20):
        shares.wait(ticket("a"))
    assert len(drain(shares)) == 4
    shares.wait(ticket("a", condition=True))
    assert [found.condition for found in drain(shares)] == [True]
    for _ in range(20):
        shares.wait(ticket("b"))
    assert len(drain(shares)) == 3


def test_the_app_with_the_fewest_places_comes_first() -> None:
    shares = Shares(3, 1.0, 0)
    first, second = ticket("a"), ticket("a")
    other = ticket("b")
    for waiting in (first, second, other):
        shares.wait(waiting)
    assert drain(shares) == [first, other, second]


def test_one_place_is_still_a_place() -> None:
    shares = Shares(1, 0.5, 1)
    shares.wait(ticket("a"))
    assert len(drain(shares)) == 1


def test_withdrawing_twice_counts_once() -> None:
    shares = Shares(1, 1.0, 0)
    waiting = ticket("a")
    shares.wait(waiting)
    shares.withdraw(waiting)
    shares.withdraw(waiting)
    assert shares.waiting == 0


@settings(max_examples=60, deadline=None)
@given(TICKETS, st.integers(1, 9), st.floats(0.1, 1), st.integers(0, 3))
def test_bounds_hold_and_all_are_served(
    wanted: list[tuple[str, bool]], maximum: int, share: float, reserved: int
) -> None:
    shares = Shares(maximum, share, reserved)
    for app_id, condition in wanted:
        shares.wait(ticket(app_id, condition))
    served = 0
    while shares.waiting:
        granted = drain(shares)
        assert granted, "somebody is always served"
        assert shares.busy == len(granted) <= maximum
        ordinary = [found for found in granted if not found.condition]
        assert len(ordinary) <= max(1, maximum - reserved)
        for app_id in "abc":
            mine = sum(found.app_id == app_id for found in ordinary)
            assert mine <= shares.share
        for found in granted:
            shares.leave(found.app_id, found.condition)
        served += len(granted)
    assert served == len(wanted)
    assert shares.busy == 0
