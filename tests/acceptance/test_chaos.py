"""Nodes are killed and paused, and what they stand on breaks, while clients work: nothing is lost,
nothing is done twice, nothing is stuck.

``INSULA_SEED=n`` chooses the faults; the same seed gives the same ones.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Served
from tests.acceptance.loopback import Loopback
from tests.chaos.auditor import audit
from tests.chaos.faults import Node, World
from tests.chaos.schedule import AT_LEAST, Topology, plan
from tests.chaos.trial import Trial

SEEDS = [int(seed) for seed in os.environ.get("INSULA_SEED", "1").split(",")]
if SOAK and "INSULA_SEED" not in os.environ:
    SEEDS = [1, 2, 3]
DURATION = 60.0 if SOAK else 15.0
COMPLETED = 500
ORDEAL = {
    "INSULA_ATTEMPTS_MAX": "100",
    "INSULA_SANDBOX_MAX": "4",
    "INSULA_RUNS_SHARE": "1",
}

pytestmark = pytest.mark.timeout(300)


def say(seed: int, violations: list[str], name: str) -> str:
    """Say how to see it again, and what was found."""
    again = f"INSULA_SEED={seed} make test ARGS='tests/acceptance/test_chaos.py -k {name} -n 0'"
    return "\n".join([f"{len(violations)} violations; again: {again}", *violations[:20]])


async def judge(trial: Trial, topology: Topology, seed: int, name: str) -> None:
    """Let a trial happen, and hold it against every rule."""
    evidence = await trial.run(plan(seed, DURATION, topology, beyond_lease=SOAK), DURATION)
    violations = audit(evidence)
    happened = trial.world.happened
    print(f"{trial.completed} runs, {dict(happened)}, settled in {trial.settled:.1f} s")  # noqa: T201
    assert not violations, say(seed, violations, name)
    assert trial.completed >= COMPLETED
    assert all(happened[kind] >= AT_LEAST for kind in topology.kinds), happened


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_node_on_sqlite(
    tmp_path: Path, settings: dict[str, str], loopback: Loopback, seed: int
) -> None:
    topology = Topology()
    world = World([Node(Served(tmp_path / "data", {**settings, **ORDEAL}))])
    file = tmp_path / "data" / "insula.db"
    trial = Trial(world, lambda: closing(sqlite3.connect(file)), loopback, seed)
    await judge(trial, topology, seed, "sqlite")
