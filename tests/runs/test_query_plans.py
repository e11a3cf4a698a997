"""Whatever is asked of the runs, each database looks at the index that has it, and at no more rows
than it returns: over rows that are as uneven as they come.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, select

from insula.kit.ids import first_id
from insula.runs import due, ranges, repository
from insula.runs.listing import has_run, list_runs, unfinished_ids
from insula.runs.ranges import LIVE, ORIGINS, STATUSES, RunFilter
from insula.storage.database import Database
from insula.storage.dialect import Driver, Rows, driver, is_postgres
from insula.storage.opening import open_database
from insula.storage.rows import insert_rows
from insula.storage.tables import runs
from insula.web.pagination import Page

DATABASES = ("sqlite", "postgres")
NEW_DATABASE = True
RUNS = 6_000
HIDDEN = 120
"""Rows that a page of 20 of this data, or a count, may come across and not show."""
_NAMES = (
    *("id", "app_id", "workflow_app_id", "workflow_id", "root_id", "depth", "hidden", "status"),
    *("origin", "background", "options", "owner", "seq", "credits", "identifier"),
    *("retention_due_at", "ended_at", "created_at", "updated_at"),
)
_INDEX = re.compile(r"(?:USING (?:COVERING )?INDEX|using|Bitmap Index Scan on) (\w+)")
_REMOVED = re.compile(r"Rows Removed by Filter: (\d+)")


class Recorder:
    """A driver that remembers what it executes."""

    def __init__(self, real: Driver, seen: list[tuple[str, Sequence[Any]]]) -> None:
        self._real = real
        self._seen = seen

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        self._seen.append((sql, parameters))
        return self._real.execute(sql, parameters)


class Plan(NamedTuple):
    """What a database does for a statement."""

    text: str
    statement: str

    @property
    def indexes(self) -> set[str]:
        return set(_INDEX.findall(self.text))

    @property
    def scans(self) -> bool:
        """Whether it goes through the table itself."""
        return re.search(r"SCAN runs(?! USING)|Seq Scan on runs", self.text) is not None

    @property
    def looked_at_in_vain(self) -> int:
        """Rows that were read and did not match, as far as the database tells."""
        return sum(map(int, _REMOVED.findall(self.text)))


def rows() -> list[tuple[Any, ...]]:
    """One app whose runs complete, one whose runs fail, one that only tests; a few of each are
    otherwise, and those are old."""
    made = []
    usual = {"app_ok": ("COMPLETED", "ENDPOINT"), "app_bad": ("FAILED", "ENDPOINT")}
    usual["app_test"] = ("COMPLETED", "TEST")
    for (app, kind), n in product(usual.items(), range(RUNS)):
        status, origin = kind if n > 50 else (STATUSES[n % 6], ORIGINS[n % 5])
        if app == "app_bad" and n > RUNS - 1500:
            status = "PENDING"
        ended = None if status in LIVE else n
        hidden = app == "app_ok" and n % 2 == 1
        name = "x" if n % 1000 == 0 else None
        at, owner = 10_000 * n, None if status == "PENDING" else "node_x"
        run_id = f"{first_id('run', at)}{app}"
        made.append(
            (
                *(run_id, app, app, f"work_{app}", run_id, 0, hidden, status, origin, False, b"{}"),
                *(owner, 3, 0.0, name, ended, ended, at, at),
            )
        )
    return made


@pytest.fixture
async def database(tmp_path: Path, database_url: str | None) -> AsyncIterator[Database]:
    opened = await open_database(database_url, tmp_path, "NORMAL", readers=1)

    def fill(connection: Connection) -> None:
        insert_rows(connection, runs, _NAMES, rows())
        if is_postgres(connection):
            driver(connection).execute("ANALYZE runs")

    await opened.write(fill)
    yield opened
    await opened.close()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Plan]]:
    """Returns the plans of what a query asks for."""
    seen: list[tuple[str, Sequence[Any]]] = []
    for module in (ranges, repository, due):
        monkeypatch.setattr(module, "driver", lambda c: Recorder(driver(c), seen), raising=False)

    def explain(connection: Connection, query: Callable[[Connection], Any]) -> list[Plan]:
        seen.clear()
        query(connection)
        told = "EXPLAIN (ANALYZE, TIMING OFF)" if is_postgres(connection) else "EXPLAIN QUERY PLAN"
        place = 0 if is_postgres(connection) else 3
        found = []
        for sql, values in [one for one in seen if not one[0].startswith("SET")]:
            lines = driver(connection).execute(f"{told} {sql}", values).fetchall()
            found.append(Plan("\n".join(line[place] for line in lines), sql))
        return found

    return explain


FILTERS = [
    RunFilter(app, f"work_{app}" if own else None, own, status, origin)
    for app, own, status, origin in product(
        ("app_ok", "app_bad", "app_test"),
        (False, True),
        (None, "COMPLETED", "FAILED", "RUNNING", "PENDING"),
        (None, "ENDPOINT", "TEST"),
    )
]


def expected(wanted: RunFilter) -> set[str]:
    if wanted.status is None and wanted.origin is None:
        return {"runs_by_app" if wanted.workflow_id is None else "runs_by_workflow"}
    if wanted.workflow_id is None or wanted.status in LIVE:
        return {"runs_by_app_status"}
    return {"runs_by_workflow_status"} | (
        set() if wanted.status is not None else {"runs_by_app_status"}
    )


async def test_every_filter_has_an_index(database: Database, plans: Any) -> None:
    page = Page(cursor={"id": "run_z"})
    for wanted in FILTERS:
        query = partial(list_runs, wanted=wanted, page=page)
        (plan,) = await database.read(partial(plans, query=query))
        assert plan.indexes == expected(wanted), (wanted, plan)
        assert not plan.scans, (wanted, plan)
        assert plan.looked_at_in_vain <= HIDDEN, (wanted, plan)


async def test_what_is_bounded_by_time_has_the_same_indexes(database: Database, plans: Any) -> None:
    for wanted in FILTERS:
        some = replace(wanted, since=20_000_000, until=20_300_000)
        query = partial(list_runs, wanted=some, page=Page())
        found = await database.read(partial(plans, query=query))
        assert len(found) == 2  # the page, and the count
        for plan in found:
            # Children that were made before have their place in the index of statuses.
            assert plan.indexes <= {*expected(wanted), *expected(replace(wanted, origin="TEST"))}
            assert not plan.scans, (wanted, plan)
            assert plan.looked_at_in_vain <= HIDDEN, (wanted, plan)


async def test_an_identifier_is_looked_for_where_fewer_runs_are(
    database: Database, plans: Any
) -> None:
    for wanted in FILTERS:
        some = replace(wanted, identifier="x")
        query = partial(list_runs, wanted=some, page=Page())
        for plan in await database.read(partial(plans, query=query)):
            assert not plan.scans, (wanted, plan)
            assert plan.indexes <= {"runs_by_identifier", *expected(wanted)}


async def test_what_is_live_is_found_without_what_has_ended(database: Database, plans: Any) -> None:
    queries: list[Any] = [partial(unfinished_ids, wanted=one, limit=10) for one in FILTERS]
    for query in queries:
        for plan in await database.write(partial(plans, query=query)):
            assert plan.indexes == {"runs_by_app_status"}, plan
            assert plan.looked_at_in_vain == 0, plan
    for workflow_id, not_of in (("work_app_ok", None), ("work_app_ok", "app_bad")):
        query = partial(
            repository.unfinished_of_workflow, workflow_id=workflow_id, not_of=not_of, limit=10
        )
        (plan,) = await database.write(partial(plans, query=query))
        assert plan.indexes == {"runs_live"}, plan
        assert not plan.scans


async def test_whether_an_app_has_a_run_is_one_look(database: Database, plans: Any) -> None:
    query = partial(has_run, app_id="app_ok", workflow_id="work_app_ok")
    (plan,) = await database.read(partial(plans, query=query))
    assert plan.indexes == {"runs_by_workflow"}
    assert plan.looked_at_in_vain <= 1


async def test_what_is_due_of_an_app_is_counted_without_the_others_runs(
    database: Database, plans: Any
) -> None:
    query = partial(due.status, app_id="app_ok", now=3_000)
    found = await database.read(partial(plans, query=query))
    assert len(found) == due.DAYS + 1
    for plan in found:
        assert plan.indexes == {"runs_due_of_app"}
        assert not plan.scans
        assert plan.looked_at_in_vain == 0


async def test_every_run_is_in_one_range_of_each_list(database: Database) -> None:
    """What the lists show is what one pass over the table finds."""
    seen = select(runs).where(~runs.c.hidden).order_by(runs.c.id.desc())
    every = await database.read(lambda c: c.execute(seen).all())
    of = {app: [row for row in every if row.app_id == app] for app in {row.app_id for row in every}}
    for wanted in [*FILTERS, *(replace(one, identifier="x") for one in FILTERS)]:
        mine = [row for row in of[wanted.app_id] if matches(row, wanted)]
        for since, until in ((None, None), (20_000_000, None), (20_000_000, 20_300_000)):
            some = replace(wanted, since=since, until=until)
            ids = [row.id for row in mine if began(row, some)]
            await database.read(partial(shows, wanted=some, ids=ids))


def shows(connection: Connection, wanted: RunFilter, ids: list[str]) -> None:
    for by_identifier in (True, False):
        found = ranges.ranges(wanted, by_identifier=by_identifier)
        assert ranges.select_ids(connection, found, limit=7, offset=2) == ids[2:9], wanted
        assert ranges.count(connection, found, most=100) == min(len(ids), 100), wanted


def matches(row: Any, wanted: RunFilter) -> bool:
    """Say the same as the ranges do, of one of an app's runs; of when it began, see ``began``."""
    return (
        wanted.workflow_id in (None, row.workflow_id)
        and wanted.status in (None, row.status)
        and wanted.origin in (None, row.origin)
        and wanted.identifier in (None, row.identifier)
    )


def began(row: Any, wanted: RunFilter) -> bool:
    """Say whether a run began when it should."""
    return (wanted.since is None or row.created_at >= wanted.since) and (
        wanted.until is None or row.created_at < wanted.until
    )
