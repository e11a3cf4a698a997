"""Of all that nodes look for among the runs, PostgreSQL scans nothing."""

import time
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from insula.journal.lease import database_clock, orphans
from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.storage.dialect import driver
from insula.storage.postgres import PostgresDatabase, open_postgres
from insula.workflows.callers import RAN

NEW_DATABASE = True
RUNS = 20_000
_FILL = f"""
    INSERT INTO runs (id, app_id, workflow_app_id, workflow_id, root_id, depth, hidden, status,
                      origin, background, options, owner, seq, credits, retention_due_at,
                      identifier, ended_at, created_at, updated_at)
    SELECT 'run_' || lpad(n::text, 8, '0'), 'app_' || n % 5, 'app_1', 'work_' || n % 7,
           'run_' || lpad(n::text, 8, '0'), 0, false,
           CASE WHEN n % 50 = 1 THEN 'FAILED' WHEN n > {RUNS - 20} THEN 'RUNNING'
                ELSE 'COMPLETED' END,
           'ENDPOINT', false, '{{}}', 'node_x', 3, 0, n, CASE WHEN n % 100 = 0 THEN 'x' END,
           CASE WHEN n > {RUNS - 20} THEN NULL ELSE n END, n, n
    FROM generate_series(1, {RUNS}) n"""

_FALL_DUE = (
    "ALTER TABLE runs SET (autovacuum_enabled = off)",
    "UPDATE runs SET retention_due_at = NULL, app_id = 'app_1'",
    "ANALYZE runs",
    "UPDATE runs SET retention_due_at = 1 WHERE ended_at IS NOT NULL",
)
_FETCHED = (
    "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'runs'"
)
"""In a transaction: the rows of runs that it has looked at."""


@pytest.fixture
async def database(tables_url: str) -> Any:
    opened = await open_postgres(tables_url, readers=1)

    def fill(connection: Connection) -> None:
        raw = driver(connection)
        raw.execute(_FILL)
        raw.execute("INSERT INTO run_data (run_id, input) SELECT id, 'in' FROM runs")
        raw.execute("ANALYZE runs")
        raw.execute("ANALYZE run_data")

    await opened.write(fill)
    yield opened
    await opened.close()


def explain(connection: Connection, ask: Any) -> list[str]:
    """Return the plans of the queries that ``ask`` makes."""
    asked: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        asked.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        ask(connection)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    plans = []
    for statement, parameters in asked:
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        plans.append("\n".join(row[0] for row in rows) + f"\n<- {statement[-300:]}")
    return plans


async def test_what_nodes_look_for_is_found_by_index(database: PostgresDatabase) -> None:
    def live(connection: Connection) -> None:
        repository.owned_by(connection, "node_x")
        repository.pending(connection, "", 10)
        orphans(connection, "node_y", database_clock(time.monotonic))

    plans = await database.read(partial(explain, ask=live))
    assert plans
    assert not [plan for plan in plans if "Seq Scan on runs" in plan]


async def test_callers_are_found_by_jumping_along_the_index(database: PostgresDatabase) -> None:
    values = {"workflow": "work_1", "after": "", "owner": "o", "most": 1}
    rows = await database.read(lambda c: c.execute(text(f"EXPLAIN {RAN}"), values).all())
    plan = "\n".join(row[0] for row in rows)
    assert "Index Only Scan using runs_by_workflow" in plan
    assert "Seq Scan on runs" not in plan


async def test_what_is_due_is_found_by_index_and_erased_quickly(
    database: PostgresDatabase,
) -> None:
    begun, erased = time.monotonic(), 0
    while found := (
        await database.write(partial(retention.erase_due, now=now_ms(), limit=1000))
    ).runs:
        erased += found
    assert erased == RUNS - 20
    assert time.monotonic() - begun < 60  # 10,000 a second on a machine of its own
    left = await database.read(
        lambda c: driver(c).execute("SELECT count(*) FROM run_data").fetchone()
    )
    assert left == (20,)


async def test_what_is_suddenly_due_is_taken_in_the_order_of_its_index(
    database: PostgresDatabase,
) -> None:
    """Before the server's figures know of it."""

    def unit(connection: Connection) -> Any:
        assert retention.erase_due(connection, now_ms(), 20).runs == 20
        return driver(connection).execute(_FETCHED).fetchone()[0]

    def fall_due(connection: Connection) -> None:
        for statement in _FALL_DUE:
            driver(connection).execute(statement)

    await database.write(fall_due)
    assert await database.write(unit) < 1000
