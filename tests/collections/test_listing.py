"""Lists of very many records: found by index, in order, looking at so much and no more."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from tests.databases import prepare
from tests.runs.platform import Platform

from insula.collections import counts, listing, reading
from insula.collections.listing import RecordFilter, list_records
from insula.collections.reading import Seen, encode_many, see_many
from insula.collections.repository import Found
from insula.storage.database import Database
from insula.storage.dialect import is_postgres
from insula.storage.opening import FILE
from insula.storage.postgres import open_postgres
from insula.storage.postgres_pipeline import Command, pipeline_of
from insula.storage.sqlite import open_sqlite
from insula.storage.tables import collections, records, tagged, tags
from insula.web.pagination import Page

from .stage import collection, rested, rule

NEW_DATABASE = True
RECORDS = 6_000
APP, LOANS = "app_1", "col_1"


def row(number: int) -> dict[str, Any]:
    status = "FAILED" if number % 100 == 7 else "COMPLETED"
    return {
        "id": f"rec_{number:06}",
        "app_id": APP,
        "collection_id": LOANS if number % 4 else "col_2",
        "config_id": "conf_1",
        "name": f"Case {number}" + (" rare" if number == 77 else ""),
        "status": status,
        "source": "API",
        "rules_count": 0,
        "pass_count": 0,
        "fail_count": 0,
        "warn_count": 0,
        "analysis": 0,
        "created_at": number,
        "updated_at": number,
    }


def fill(connection: Connection) -> None:
    rows = [row(number) for number in range(RECORDS)]
    connection.execute(records.insert(), rows)
    made = {"app_id": APP, "name": "C", "config_id": "conf_1", "triggers": b"[]"}
    at = {"created_at": 1, "updated_at": 1, "deleting": False}
    connection.execute(
        collections.insert(), [{"id": found, **made, **at} for found in (LOANS, "col_2")]
    )
    for each in rows:
        counts.change_records(connection, each["collection_id"], each["status"], 1)
    for tag_id in ("tag_many", "tag_few"):
        label = {"id": tag_id, "app_id": APP, "name": tag_id, "created_at": 1, "updated_at": 1}
        connection.execute(tags.insert(), [label])
    labelled = [{"tag_id": "tag_many", "thing_id": each["id"]} for each in rows]
    labelled += [{"tag_id": "tag_few", "thing_id": each["id"]} for each in rows[::1_000]]
    labelled += [{"tag_id": "tag_many", "thing_id": f"{kind}_1"} for kind in ("col", "work")]
    connection.execute(tagged.insert(), labelled)


@pytest.fixture
async def database(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[Database]:
    if not settings:
        prepare(tmp_path)
        opened: Database = await open_sqlite(tmp_path / FILE)
    else:
        opened = await open_postgres(settings["database_url"], readers=1)
    await opened.write(fill)
    if settings:
        await opened.write(lambda c: c.execute(text("ANALYZE records, tagged")).rowcount)
    yield opened
    await opened.close()


def plans_of(connection: Connection, wanted: RecordFilter, page: Page) -> list[str]:
    """Return how the database goes about each statement of a list."""
    asked: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        asked.append((statement, parameters))

    together: list[Command] = []
    event.listen(connection, "before_cursor_execute", note)
    try:
        with pytest.MonkeyPatch.context() as patched:
            if is_postgres(connection):
                pipeline = pipeline_of(connection)
                ask_all = pipeline.ask_all
                patched.setattr(pipeline, "ask_all", lambda c: together.extend(c) or ask_all(c))
            list_records(connection, wanted, page)
    finally:
        event.remove(connection, "before_cursor_execute", note)
    explain = "EXPLAIN" if is_postgres(connection) else "EXPLAIN QUERY PLAN"
    plans = []
    for command in together:
        told = ask_all([command._replace(text=b"EXPLAIN " + command.text)])[0]
        lines = [str(told.get_value(row, 0)) for row in range(told.ntuples)]
        plans.append("\n".join(lines) + f"\n<- {command.text.decode()}")
    for statement, parameters in asked:
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
        lines = [str(line[0] if is_postgres(connection) else line[3]) for line in rows]
        plans.append("\n".join(lines) + f"\n<- {statement}")
    return plans


FILTERS = [
    RecordFilter(APP, collection_id, search, status, tag_ids)
    for collection_id in (LOANS, None)
    for search in (None, "case 7")
    for status in (None, "FAILED")
    for tag_ids in ((), ("tag_many",), ("tag_many", "tag_few"))
]


async def test_no_list_scans_or_sorts(database: Database) -> None:
    """But for the rows of one page, and the handful that has a rare second tag."""
    for wanted in FILTERS:
        for page in (Page(), Page(2, 20, {"before": "rec_003000"})):
            plans = await database.read(lambda c, w=wanted, p=page: plans_of(c, w, p))  # type: ignore[misc]  # of this round
            assert plans
            for plan in plans:
                assert "SCAN records" not in plan, plan
                assert "SCAN tagged" not in plan, plan
                assert "Seq Scan on records" not in plan, plan
                assert "TEMP B-TREE" not in plan, plan


async def walked(database: Database, wanted: RecordFilter, take: int) -> tuple[list[str], int]:
    """Walk a list by its cursor; return the ids, and how many pages there were."""
    seen: list[str] = []
    cursor, pages = None, 0
    while True:
        page = Page(pages + 1, take, cursor)
        found: Found = await database.read(lambda c, p=page: list_records(c, wanted, p))  # type: ignore[misc]  # of this round
        seen += [one.id for one in found.rows]
        pages += 1
        if found.following is None:
            return seen, pages
        cursor = found.following


async def test_a_walk_finds_all_that_matches_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED", 700)
    monkeypatch.setattr(listing, "STEPS", 2)
    for wanted in FILTERS:
        seen, _ = await walked(database, wanted, 400)
        expected = [
            made["id"]
            for number in reversed(range(RECORDS))
            if (made := row(number))
            and wanted.collection_id in (None, made["collection_id"])
            and wanted.status in (None, made["status"])
            and all(word in made["name"].lower() for word in (wanted.search or "").split())
            and ("tag_few" not in wanted.tag_ids or number % 1_000 == 0)
        ]
        assert seen == expected, wanted


async def test_what_is_rare_is_looked_for_as_far_as_one_answer_goes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED", 500)
    monkeypatch.setattr(listing, "COUNTED", 500)
    monkeypatch.setattr(listing, "STEPS", 3)
    wanted = RecordFilter(APP, LOANS, "rare")
    first: Found = await database.read(lambda c: list_records(c, wanted, Page()))
    assert (first.rows, first.count, first.capped) == ([], 0, True)
    assert first.following is not None
    seen, pages = await walked(database, wanted, 20)
    assert seen == ["rec_000077"]
    assert pages == 5  # each looks at 84, 420 and 500 of 4,500


async def test_counts_are_exact_as_far_as_was_looked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counted(**more: Any) -> tuple[int, bool]:
        wanted = RecordFilter(APP, LOANS, **more)
        found: Found = await database.read(lambda c: list_records(c, wanted, Page()))
        return found.count, found.capped

    monkeypatch.setattr(listing, "COUNTED", 1_000)
    assert await counted() == (RECORDS * 3 // 4, False)
    assert await counted(status="FAILED") == (RECORDS // 100, False)
    assert await counted(tag_ids=("tag_few",)) == (0, False)
    assert await counted(search="case", status="FAILED") == (RECORDS // 100, False)
    assert await counted(search="case") == (listing.COUNTED, True)
    monkeypatch.setattr(listing, "COUNTED", RECORDS + 1)
    assert await counted(search="rare") == (1, False)
    assert await counted(tag_ids=("tag_many",), search="case 7") == (
        sum("7" in str(number) for number in range(RECORDS) if number % 4),
        False,
    )


async def test_pages_by_number_count_matches(database: Database) -> None:
    wanted = RecordFilter(APP, LOANS, "case")
    pages = [
        await database.read(lambda c, n=number: list_records(c, wanted, Page(n, 50)))  # type: ignore[misc]  # of this round
        for number in (1, 2, 3)
    ]
    ids = [one.id for page in pages for one in page.rows]
    assert len(set(ids)) == 150
    assert ids == sorted(ids, reverse=True)


async def test_a_list_that_goes_on_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED", 2)
    monkeypatch.setattr(listing, "COUNTED", 2)
    monkeypatch.setattr(listing, "STEPS", 1)
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    for name in ("Jones", "Smith", "Brown"):
        await acme.ok("POST", f"{path}/records", {"name": name})
    first = await acme.ask("GET", f"{path}/records", params={"search": "jon"})
    assert first.json() == []
    assert first.headers["pagination-capped"] == "true"
    query = {"search": "jon", "next": first.headers["pagination-next"]}
    second = await acme.ask("GET", f"{path}/records", params=query)
    assert [one["name"] for one in second.json()] == ["Jones"]
    assert "pagination-next" not in second.headers
    # The count is the first page's: nobody looks at all that again for each that follows.
    for name in ("pagination-count", "pagination-capped"):
        assert second.headers[name] == first.headers[name]


async def test_a_page_ends_before_what_is_too_much(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "input.text"))
    made = []
    for size in (10, 4_000, 9_000, 10, 10):
        body = {"rules": {"a": {"text": "x" * size}}, "run": "all"}
        made.append((await acme.ok("POST", f"{path}/records", body))["id"])
        await rested(acme, f"{path}/records/{made[-1]}")
    within = 8_000

    def seen(connection: Connection, rows: Any, base: str) -> Seen:
        return see_many(connection, rows, base, within)

    async def some(services: Any, seen: Seen, **more: Any) -> list[bytes]:
        return await encode_many(services, seen, within, **more)

    monkeypatch.setattr(reading, "see_many", seen)
    monkeypatch.setattr(reading, "encode_many", some)

    async def walk(**query: Any) -> list[int]:
        pages: list[list[str]] = []
        while True:
            answer = await acme.ask("GET", f"{path}/records", params={"take": 100} | query)
            assert answer.headers["pagination-count"] == "5"
            pages.append([one["id"] for one in answer.json()])
            if "pagination-next" not in answer.headers:
                assert [one for page in pages for one in page] == made[::-1]
                return [len(page) for page in pages]
            query["next"] = answer.headers["pagination-next"]

    # What is stored ends a page before all of it is read, and what is shown before it is sent.
    assert await walk() == [2, 1, 1, 1]
    within = 40_000
    assert await walk() == [5]
    assert len(await walk(verbose="all")) > 1
