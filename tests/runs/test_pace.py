"""How often nodes look for work, and how much they take."""

from insula.runs import pace


def test_a_few_nodes_sweep_every_second_and_many_ten_times_a_second_together() -> None:
    for living, seconds in ((0, 1.0), (1, 1.0), (10, 1.0), (40, 4.0), (1000, 100.0)):
        for _ in range(20):
            assert 0.9 * seconds <= pace.period(living, hurried=False) <= 1.1 * seconds
            assert 0.9 <= pace.period(living, hurried=True) <= 1.1


def test_few_nodes_answer_a_call_at_once_and_many_spread_themselves() -> None:
    assert {pace.spread(living) for living in (0, 1, 3, 10)} == {0.0}
    delays = [pace.spread(1000) for _ in range(50)]
    assert max(delays) <= 2.0
    assert len(set(delays)) > 1


def test_a_queue_is_filled_to_twice_of_what_begins() -> None:
    assert pace.wanted(free=100, begun=0, waiting=0) == 200
    assert pace.wanted(free=100, begun=0, waiting=150) == 50
    assert pace.wanted(free=0, begun=300, waiting=0) == 600
    assert pace.wanted(free=0, begun=0, waiting=0) > 0
    assert pace.wanted(free=1, begun=1, waiting=10_000) == 0


def test_some_are_chosen_and_keep_their_order() -> None:
    found = [("app", f"run_{number:03}") for number in range(100)]
    assert pace.choose(found, 100) == found
    chosen = pace.choose(found, 10)
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen)
    assert pace.choose(found, 0) == []
