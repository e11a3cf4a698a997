"""Each partial index serves what it was made for, on both databases: a query that does not say the
index's condition in words that the database understands looks at everything, and nobody notices.
The same of some statements that are served by whole indexes.
"""

import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

import insula.app  # noqa: F401  # every module that asks for something
from insula.adapters import sealed_rows
from insula.apps import remove as apps_gone
from insula.apps import repository as apps
from insula.catalogue import repository as catalogue
from insula.collections import record_repository as records
from insula.collections import repository as collections
from insula.files import extractions
from insula.files import repository as files
from insula.journal.lease import cancel_requested, database_clock, orphans
from insula.runs import due, retention
from insula.runs import repository as runs
from insula.runs.listing import list_runs, unfinished_ids
from insula.runs.ranges import RunFilter
from insula.schedules import repository as schedules
from insula.storage import counters, dialect
from insula.storage.database import Database
from insula.storage.dialect import driver, is_postgres
from insula.storage.opening import open_database
from insula.storage.tables import metadata
from insula.variables import repository as variables
from insula.web.pagination import Page
from insula.webhooks import bounds, deliveries, turns
from insula.workflow_tests import repository as workflow_tests
from insula.workflows import remove as workflows

DATABASES = ("sqlite", "postgres")
NEW_DATABASE = True
Query = Callable[[Connection], Any]
_WHOLE = RunFilter("app_1", "work_1", status="FAILED")
QUERIES: dict[str, list[Query]] = {
    "apps_deleting": [partial(apps.being_deleted, stale_ms=0)],
    "apps_gone": [apps_gone.forget_rows],
    "workflows_discoverable": [
        lambda c: catalogue.discover(c, "app_1", None, [], Page()),
    ],
    "workflows_stopping": [partial(workflows.being_deleted, stale_ms=0)],
    "workflows_deleted": [partial(workflows.left, after="", limit=10)],
    "collections_deleting": [collections.closing],
    "runs_by_app_status": [
        partial(unfinished_ids, wanted=RunFilter("app_1"), limit=10),
        partial(list_runs, wanted=RunFilter("app_1", origin="TEST"), page=Page()),
    ],
    "runs_by_workflow_status": [partial(list_runs, wanted=_WHOLE, page=Page())],
    "runs_by_root": [
        partial(runs.tree_size, root_id="run_1"),
        lambda c: retention.due_below(c, "run_1", 1),
    ],
    "runs_live": [
        partial(runs.owned_by, token="node_x"),
        partial(runs.pending, after="", limit=10),
        lambda c: runs.unfinished_of_workflow(c, "work_1", None, 10),
        lambda c: orphans(c, "node_x", database_clock(time.monotonic)),
        lambda c: cancel_requested(c, "node_x"),
    ],
    "runs_due": [partial(retention.erase_due, now=1, limit=10)],
    "runs_due_of_app": [partial(due.status, app_id="app_1", now=1)],
    "runs_by_identifier": [
        partial(list_runs, wanted=RunFilter("app_1", identifier="x"), page=Page(cursor={"id": "s"}))
    ],
    "schedules_due": [lambda c: schedules.due_after(c, (0, ""), 10)],
    "variables_today": [lambda c: variables.find(c, "app_1", "x")],
    "variables_past": [partial(variables.forget, before=1)],
    "variables_sealed": [sealed_rows.needed],
    "connections_sealed": [sealed_rows.needed],
    "webhooks_sealed": [sealed_rows.needed],
    "hook_tokens_sealed": [sealed_rows.needed],
    "files_listed": [partial(files.list_files, app_id="app_1", take=10)],
    "files_by_parent": [partial(files.delete_children, file_id="file_1")],
    "extractions_open": [lambda c: extractions.claim(c, "node_x", [], "")],
    "records_live": [partial(records.needing, after="")],
    "record_rules_running": [partial(records.needing, after="")],
    "workflow_tests_running": [
        workflow_tests.turns,
        lambda c: workflow_tests.underway(c, "work_1"),
    ],
    "deliveries_due": [lambda c: turns.due(c, 1, turns.Busy()), bounds.overfull],
}
_PARTIAL = [
    index
    for table in metadata.sorted_tables
    for index in sorted(table.indexes, key=lambda index: str(index.name))
    if index.dialect_options["sqlite"]["where"] is not None
]


@pytest.fixture
async def database(tmp_path: Path, database_url: str | None) -> AsyncIterator[Database]:
    opened = await open_database(database_url, tmp_path, "NORMAL", readers=1)
    yield opened
    await opened.close()


class Recorder:
    """A driver that remembers what it executes."""

    def __init__(self, connection: Connection, seen: list[tuple[str, Any]]) -> None:
        self._real = driver(connection)
        self._seen = seen

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        self._seen.append((sql, parameters))
        return self._real.execute(sql, parameters)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Callable[[Connection, Query], list[str]]:
    """Returns the plans of what a query asks for, by whichever way."""
    below: list[tuple[str, Any]] = []
    for name, module in list(sys.modules.items()):
        asks = name.startswith("insula.") and module is not dialect
        if asks and getattr(module, "driver", None) is driver:
            monkeypatch.setattr(module, "driver", lambda c: Recorder(c, below))

    def explain(connection: Connection, query: Query) -> list[str]:
        below.clear()
        through: list[tuple[str, Any]] = []

        def note(conn: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
            through.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        try:
            query(connection)
        finally:
            event.remove(connection, "before_cursor_execute", note)
        told = "EXPLAIN" if is_postgres(connection) else "EXPLAIN QUERY PLAN"
        asked = [one for one in below if not one[0].startswith("SET")]
        found = [driver(connection).execute(f"{told} {sql}", values) for sql, values in asked]
        shown = [rows.fetchall() for rows in found]
        for sql, values in through:
            shown.append(list(connection.exec_driver_sql(f"{told} {sql}", values)))
        place = 0 if is_postgres(connection) else 3
        return ["\n".join(row[place] for row in rows) for rows in shown]

    return explain


def test_every_partial_index_has_its_queries() -> None:
    assert set(QUERIES) == {index.name for index in _PARTIAL}


@pytest.mark.parametrize("index", _PARTIAL, ids=lambda index: index.name)
async def test_a_partial_index_serves(database: Database, index: Any, plans: Any) -> None:
    table = index.table.name
    for query in QUERIES[index.name]:
        told = await database.write(partial(plans, query=query))
        assert any(re.search(rf"\b{index.name}\b", plan) for plan in told), told
        assert not any(re.search(rf"SCAN {table}(?! USING)", plan) for plan in told), told
        assert not any(f"Seq Scan on {table}" in plan for plan in told), told


_KEY = ("app_1", "work_1", "RUNNING", "API")
WHOLE: dict[str, tuple[str, Query]] = {
    "counters": ("", partial(counters.gather, keys=[_KEY, ("app_2", *_KEY[1:])])),
    "collections": ("", partial(collections.drop_config, config_id="config_1")),
    "deliveries": (
        "deliveries_by_status",
        partial(
            deliveries.list_page,
            webhook_id="hook_1",
            status="FAILED",
            take=20,
            offset=0,
            before=None,
        ),
    ),
}


@pytest.mark.parametrize("table", WHOLE)
async def test_what_has_a_place_is_not_looked_for_everywhere(
    database: Database, table: str, plans: Any
) -> None:
    index, query = WHOLE[table]
    told = await database.write(partial(plans, query=query))
    assert any(index in plan for plan in told), told
    assert not any(re.search(rf"(SCAN|Seq Scan on) {table}\b", plan) for plan in told), told
