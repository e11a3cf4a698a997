from collections import Counter

import pytest

from tests.chaos.schedule import AT_LEAST, LEASE, Topology, plan

ALONE = Topology()
CLUSTER = Topology(nodes=3, database=True, broker=True)


@pytest.mark.parametrize("topology", [ALONE, CLUSTER])
def test_the_same_seed_gives_the_same_faults(topology: Topology) -> None:
    assert plan(7, 15.0, topology) == plan(7, 15.0, topology)
    assert plan(7, 15.0, topology) != plan(8, 15.0, topology)


@pytest.mark.parametrize("topology", [ALONE, CLUSTER])
@pytest.mark.parametrize("seed", range(20))
def test_each_kind_comes_often_enough_and_in_time(topology: Topology, seed: int) -> None:
    faults = plan(seed, 15.0, topology)
    counted = Counter(fault.kind for fault in faults)
    assert set(counted) == set(topology.kinds)
    assert min(counted.values()) >= AT_LEAST
    assert list(faults) == sorted(faults)
    for fault in faults:
        assert 0 < fault.at < 15.0
        assert fault.seconds < LEASE
        assert fault.node < topology.nodes


def test_one_node_has_neither_broker_nor_partition() -> None:
    assert {fault.kind for fault in plan(3, 15.0, ALONE)} == {"kill", "pause"}


def test_every_way_and_side_comes() -> None:
    faults = plan(1, 120.0, CLUSTER)
    assert {(f.way, f.side) for f in faults if f.kind == "partition"} == {
        (way, side) for way in ("stall", "cut", "refuse") for side in ("database", "broker")
    }
    assert {f.way for f in faults if f.kind == "database"} == {"fast", "immediate"}
    assert {f.node for f in faults if f.kind == "kill"} == {0, 1, 2}


def test_a_pause_beyond_the_lease() -> None:
    faults = plan(1, 60.0, CLUSTER, beyond_lease=True)
    assert [f.seconds > LEASE for f in faults if f.kind == "pause"].count(True) == 1
