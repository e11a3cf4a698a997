"""Simulated leases: who dies is followed in time, and costs grow as the formula says."""

import pytest
from benchmarks.simulation_leases import Cluster, Costs, Lease, Leases, Traffic


def simulated(
    cluster: Cluster, lease: Lease | None = None, costs: Costs | None = None, seed: int = 1
) -> Traffic:
    return Leases(cluster, lease or Lease(), costs or Costs(), seed).run(30.0)


def test_the_same_seed_gives_the_same_output() -> None:
    cluster = Cluster(20, 50, deaths=2)
    assert simulated(cluster) == simulated(cluster)
    assert simulated(cluster) != simulated(cluster, seed=2)


def test_every_run_of_a_dead_node_is_taken_over_once_and_in_time() -> None:
    seen = simulated(Cluster(10, 50, deaths=2))
    assert len(seen.takeovers) == 100
    assert seen.left == 0
    # Six seconds from the last renewal, at most two ago, a second of grace, a sweep.
    assert min(seen.takeovers) > 6 + 1 - 2
    assert max(seen.takeovers) < 6 + 1 + 1.1 + 1.1


def test_nodes_that_live_are_not_declared_dead() -> None:
    seen = simulated(Cluster(10, 50, deaths=0))
    assert (seen.lapses, seen.claims, seen.takeovers) == (0, 0, [])


def test_leases_lapse_where_the_database_cannot_follow() -> None:
    seen = simulated(Cluster(100, 100, deaths=0, cores=1.0), costs=Costs(statement=0.04))
    assert seen.lapses > 0


def test_traffic_is_what_the_constants_say() -> None:
    seen = simulated(Cluster(50, 10, deaths=0))
    assert seen.renewals / seen.seconds == pytest.approx(25, rel=0.05)
    assert seen.sweeps / seen.seconds == pytest.approx(50, rel=0.05)
    assert seen.rows == seen.sweeps * 50 * 11


def test_a_bound_on_sweeps_holds_for_any_number_of_nodes_and_still_finds_the_dead() -> None:
    lease = Lease(search="owners", sweeps=10)
    seen = simulated(Cluster(300, 20, deaths=3), lease)
    assert seen.sweeps / seen.seconds < 12
    assert seen.left == 0
    assert seen.takeover(0.99) < 10
