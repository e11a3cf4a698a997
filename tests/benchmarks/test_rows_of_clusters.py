"""The programs that measure PostgreSQL and clusters, at their shortest: that they run, and what
they print."""

import pytest
from benchmarks.rows_of_clusters import cluster_rows, light_rows

from benchmarks import cluster, journal_floor, light
from tests import nats, postgres

needs_postgres = pytest.mark.skipif(postgres.binaries() is None, reason="no PostgreSQL")
needs_nats = pytest.mark.skipif(nats.binary() is None, reason="no nats-server")


def test_a_light_run_is_held_against_sqlite() -> None:
    figures = {"alone_p50_ms": 4.0, "alone_p99_ms": 6.0, "core_ms": 2.0, "rate": 600.0}
    rows = light_rows({"sqlite": figures, "postgresql": {**figures, "alone_p50_ms": 8.0}})
    assert [row.met for row in rows] == [False, None, None, None, True]
    assert rows[0].value == 4.0
    assert rows[1].ratio == 2.0


@needs_postgres
async def test_light_runs_on_both_databases() -> None:
    found = await light.compare(0.2, turns=1)
    assert set(found) == {"sqlite", "postgresql"}
    assert all(figures["rate"] > 0 for figures in found.values())


@needs_postgres
async def test_the_floor_of_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_floor, "SECONDS", 0.5)
    found = await journal_floor.measure_postgres()
    assert "bare_postgresql_1" in found
    assert all(rate > 0 for rate in found.values())


@needs_postgres
@needs_nats
@pytest.mark.timeout(90)
async def test_two_nodes() -> None:
    found = await cluster.measure(0.2, 2, 50)
    rows = {row.what: row for row in cluster_rows(found)}
    assert rows["runs lost with a node"].met
    assert len(rows) == 7
