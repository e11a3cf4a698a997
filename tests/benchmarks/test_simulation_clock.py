"""Counted time: order, and cores that are shared equally."""

import pytest
from benchmarks.simulation_clock import SharedCores, Simulation, quantile


def test_actions_happen_in_the_order_of_their_times() -> None:
    simulation, seen = Simulation(), []
    for delay, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "never")):
        simulation.after(delay, lambda name=name: seen.append((simulation.now, name)))
    simulation.run(5.0)
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    assert simulation.now == 5.0


@pytest.mark.parametrize(("cores", "ends"), [(1.0, [2.0, 3.0]), (2.0, [1.0, 2.0])])
def test_work_shares_the_cores(cores: float, ends: list[float]) -> None:
    simulation, seen = Simulation(), []
    database = SharedCores(simulation, cores)
    for work in (1.0, 2.0):
        database.submit(work, lambda: seen.append(simulation.now))
    simulation.run(10.0)
    assert seen == pytest.approx(ends)
    assert database.busy == pytest.approx(3.0)


def test_work_that_arrives_later_slows_what_is_there() -> None:
    simulation, seen = Simulation(), []
    database = SharedCores(simulation, 1.0)
    database.submit(2.0, lambda: seen.append(("first", simulation.now)))
    simulation.after(
        1.0, lambda: database.submit(0.5, lambda: seen.append(("second", simulation.now)))
    )
    simulation.run(10.0)
    assert [name for name, _ in seen] == ["second", "first"]
    assert [at for _, at in seen] == pytest.approx([2.0, 2.5])


def test_quantiles() -> None:
    assert quantile([], 0.5) == 0.0
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 1.0) == 3.0
