"""The queue: fair between owners, bounded, and nothing in it twice."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from insula.jobs.queue import FairQueue


def everyone(_: str) -> bool:
    return True


def drain(queue: FairQueue) -> list[str]:
    taken = []
    while (item := queue.take(everyone)) is not None:
        taken.append(item)
    return taken


def test_owners_take_turns() -> None:
    queue = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        assert queue.offer(item[0], item)
    assert drain(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(queue) == 0


def test_an_item_waits_once() -> None:
    queue = FairQueue()
    assert queue.offer("a", "1")
    assert queue.offer("a", "1")
    assert drain(queue) == ["1"]
    assert queue.offer("a", "1")
    assert drain(queue) == ["1"]


def test_who_is_not_admitted_keeps_the_place() -> None:
    queue = FairQueue()
    for item in ("a1", "b1", "a2"):
        queue.offer(item[0], item)
    assert queue.take(lambda owner: owner == "b") == "b1"
    assert queue.take(lambda owner: False) is None
    assert queue.has("a")
    assert not queue.has("b")
    assert drain(queue) == ["a1", "a2"]


def test_it_is_bounded_in_all_and_for_each_owner() -> None:
    queue = FairQueue(maximum=4, share=0.5)
    assert [queue.offer("a", str(n)) for n in range(3)] == [True, True, False]
    assert queue.offer("b", "x")
    assert queue.offer("c", "y")
    assert not queue.offer("d", "z")
    assert len(queue) == 4


async def test_arrived_tells_of_what_was_offered_or_may_have_room_now() -> None:
    queue = FairQueue()
    waiting = asyncio.ensure_future(queue.arrived())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.offer("a", "1")
    await waiting
    waiting = asyncio.ensure_future(queue.arrived())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.wake()
    await waiting


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=40))
def test_nothing_is_lost_and_nobody_waits_for_another_s_second(
    offered: list[tuple[str, int]],
) -> None:
    queue = FairQueue()
    items = list(dict.fromkeys((owner, f"{owner}{number}") for owner, number in offered))
    for owner, item in items:
        assert queue.offer(owner, item)
    taken = drain(queue)
    assert sorted(taken) == sorted(item for _, item in items)
    for owner in {owner for owner, _ in items}:
        own = [item for item in taken if item[0] == owner]
        assert own == [item for who, item in items if who == owner]
    ahead: dict[str, int] = {}
    for item in taken:
        ahead[item[0]] = ahead.get(item[0], 0) + 1
        waiting = {o for o, _ in items} - {t[0] for t in taken[: taken.index(item)]}
        assert all(ahead[item[0]] <= 1 or owner == item[0] for owner in waiting)
