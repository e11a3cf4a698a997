"""The simulated queue obeys the laws that every queue obeys."""

import math

import pytest
from benchmarks.simulation_queue import App, Fleet, Queueing, Waits

INSTANT = {"hint_delay": 0.0, "fetch": 0.0, "look": 0.0, "share": 1.0}


def simulated(fleet: Fleet, apps: list[App], seconds: float, seed: int = 1) -> Waits:
    return Queueing(fleet, apps, lambda luck: luck.expovariate(1.0), seed).run(seconds)


def erlang_c(servers: int, load: float) -> float:
    """The chance that an arrival waits in M/M/c, by the closed formula."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (4, 3.0), (16, 13.0)])
def test_one_node_waits_as_the_formula_for_m_m_c_says(servers: int, load: float) -> None:
    seen = simulated(Fleet(1, servers, **INSTANT), [App("a", load)], 60_000 / load)
    waits = seen.waits["a"]
    expected = erlang_c(servers, load)
    assert sum(wait > 0 for wait in waits) / len(waits) == pytest.approx(expected, rel=0.1)
    assert sum(waits) / len(waits) == pytest.approx(expected / (servers - load), rel=0.15)


@pytest.mark.parametrize("nodes", [1, 7])
def test_little_s_law_holds(nodes: int) -> None:
    fleet = Fleet(nodes, 8, hint_lost=0.01)
    apps = [App("a", nodes * 3.0), App("b", nodes * 2.0, (10.0, 2.0, 3.0))]
    seen = simulated(fleet, apps, 1_000.0)
    time_inside = sum(seen.sojourns) / len(seen.sojourns)
    assert seen.in_system == pytest.approx(seen.rate * time_inside, rel=0.02)


def test_the_same_seed_gives_the_same_output_and_another_one_does_not() -> None:
    fleet, apps = Fleet(5, 8, hint_lost=0.01), [App("a", 20.0), App("b", 10.0, (5.0, 1.0, 4.0))]
    first, again = simulated(fleet, apps, 50.0), simulated(fleet, apps, 50.0)
    assert first == again
    assert first != simulated(fleet, apps, 50.0, seed=2)


def test_a_burst_of_one_app_does_not_make_another_wait() -> None:
    apps = [App("steady", 8.0), App("bursty", 4.0, (20.0, 4.0, 30.0))]
    fair = simulated(Fleet(5, 8), apps, 200.0)
    plain = simulated(Fleet(5, 8, fair=False), apps, 200.0)
    assert fair.wait(0.99, "steady") < 0.2 < plain.wait(0.99, "steady")


def test_a_lost_hint_costs_a_run_no_more_than_the_next_sweep() -> None:
    seen = simulated(Fleet(3, 8, hint_lost=1.0), [App("a", 6.0)], 200.0)
    assert 0.05 < seen.wait(0.5, "a") < 0.4
    assert seen.wait(1.0, "a") < 1.1


def test_offering_few_saves_the_looks_at_runs_that_another_node_has_begun() -> None:
    apps = [App("bursty", 20.0, (10.0, 2.0, 12.0))]
    many = simulated(Fleet(20, 8), apps, 30.0)
    few = simulated(Fleet(20, 8, chosen=16), apps, 30.0)
    assert few.useless_looks < many.useless_looks / 5
    assert few.wait(0.99) < 2 * many.wait(0.99)


def test_bursts_keep_to_their_times() -> None:
    app = App("bursty", 2.0, (10.0, 2.0, 5.0))
    assert [app.rate_at(moment) for moment in (0.0, 1.9, 2.1, 9.9, 11.0)] == [10, 10, 2, 2, 10]
