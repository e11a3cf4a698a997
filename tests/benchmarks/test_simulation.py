"""What the simulation prints: the same for the same seed, and it says what breaks first."""

from benchmarks.simulation import LEASES, SIZES, cancelling, findings, leasing, waiting
from benchmarks.simulation_messages import Path, cancels


def test_rows_are_the_same_for_the_same_seed() -> None:
    assert waiting(10, "in turn, 16 offered", 12.0, 3) == waiting(
        10, "in turn, 16 offered", 12.0, 3
    )
    assert cancelling(10, 3) == cancelling(10, 3)


def test_it_says_which_way_of_searching_breaks_first() -> None:
    rows = [leasing(nodes, search, 4.0, 1) for nodes in SIZES for search in LEASES]
    said = findings(rows)
    assert len(said) == len(LEASES)
    assert "breaks first" in said[0]
    assert "1,000 nodes" in said[0]
    assert "stays under" in said[-1]


def test_a_cancel_waits_for_the_renewal_only_without_a_broker() -> None:
    seen = cancels(10, 5_000, Path(), 1)
    assert seen.p99 < 0.1
    assert 1.9 < seen.without_broker_p99 < 2.2
    assert seen.elsewhere / seen.asked > 0.85
    assert cancels(1, 100, Path(), 1).elsewhere == 0
