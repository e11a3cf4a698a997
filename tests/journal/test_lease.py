import asyncio
import time

import pytest
from sqlalchemy import insert
from tests.journal.rows import TOKEN, create, over, started

from insula.engine.ports import Fenced
from insula.errors import Unavailable
from insula.journal import lease as module
from insula.journal.journal import Journal
from insula.journal.lease import Lease, LeaseLost, cancel_requested, lapse_others
from insula.kit.clock import now_ms
from insula.storage.sqlite import SqliteDatabase
from insula.storage.sqlite_connection import driver
from insula.storage.tables import nodes


async def node(database: SqliteDatabase, token: str, expires_in: int) -> None:
    row = {"token": token, "name": "x", "expires_at": now_ms() + expires_in, "started_at": 1}
    await database.write(lambda connection: connection.execute(insert(nodes).values(row)).rowcount)


async def tokens(database: SqliteDatabase) -> list[str]:
    return await database.read(
        lambda connection: [
            token for (token,) in driver(connection).execute("SELECT token FROM nodes")
        ]
    )


async def test_a_lease_lasts_until_its_deadline(database: SqliteDatabase, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    lease = Lease(database, journal, "here")
    await lease.take()
    assert journal.lease_until is not None
    assert 4 < journal.lease_until - time.clock_gettime(time.CLOCK_BOOTTIME) <= module.SECONDS
    await log.stored()
    journal.lease_until = time.clock_gettime(time.CLOCK_BOOTTIME)
    with pytest.raises(Fenced):
        await log.stored()
    await lease.renew()
    await log.stored()
    await lease.release()
    assert await tokens(database) == []


async def test_the_holder_of_the_folder_lapses_all_others_and_is_never_fenced(
    database: SqliteDatabase, journal: Journal
) -> None:
    await node(database, "node_old", 60_000)
    lease = Lease(database, journal, "here", exclusive=True)
    await lease.take()
    await lease.renew()
    assert await tokens(database) == [TOKEN]
    assert journal.lease_until is None


async def test_a_lease_that_was_taken_away_fences_at_once(
    database: SqliteDatabase, journal: Journal
) -> None:
    lease = Lease(database, journal, "here")
    await lease.take()
    await database.write(lambda connection: lapse_others(connection, "node_other"))
    with pytest.raises(LeaseLost, match="here"):
        await lease.renew()
    with pytest.raises(Fenced):
        journal.deadline()


async def test_renewals_go_on_though_one_fails(
    database: SqliteDatabase, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY", 0)
    lease = Lease(database, journal, "here")
    await lease.take()
    outcomes = [Unavailable("the disk is full"), None, Unavailable("again"), LeaseLost("gone")]

    async def renew() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(lease, "renew", renew)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(lease.keep(), 10)
    assert outcomes == []


async def test_a_renewal_passes_on_what_is_to_be_cancelled(
    database: SqliteDatabase, journal: Journal
) -> None:
    await create(database, "run_a", cancel_requested_at=5)
    await create(database, "run_b")
    await create(database, "run_c", owner="node_other", cancel_requested_at=5)
    await create(database, "run_d", cancel_requested_at=5, ended_at=6)
    requested: list[str] = []
    lease = Lease(database, journal, "here", cancel_requested=requested.extend)
    await lease.take()
    await lease.renew()
    assert requested == ["run_a"]


async def test_orphans_are_the_live_runs_of_dead_owners(
    database: SqliteDatabase, journal: Journal
) -> None:
    await node(database, "node_alive", 60_000)
    await node(database, "node_in_grace", -500)
    await node(database, "node_lapsed", -1_500)
    for owner in (TOKEN, "node_alive", "node_in_grace", "node_lapsed", "node_unknown", "a", "z"):
        await create(database, f"run_{owner}", owner=owner)
    await create(database, "run_queued", owner=None)
    await create(database, "run_ended", owner="node_lapsed", ended_at=1)
    orphans = await database.read(journal.orphans)
    assert orphans == ["run_a", "run_node_lapsed", "run_node_unknown", "run_z"]


async def test_the_queries_of_every_second_go_by_the_index_of_live_runs(
    database: SqliteDatabase, journal: Journal
) -> None:
    texts: list[str] = []
    await database.write(lambda connection: driver(connection).set_trace_callback(texts.append))
    await database.write(journal.orphans)
    await database.write(lambda connection: cancel_requested(connection, TOKEN))
    queries = [text for text in texts if "FROM runs" in text]
    assert len(queries) == 2
    for text in queries:
        rows = await database.read(
            lambda connection, text=text: (
                driver(connection).execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
            )
        )
        plan = [row[3] for row in rows if " runs" in row[3]]
        assert plan
        assert all("SEARCH runs USING INDEX runs_live (owner" in line for line in plan), plan


async def test_what_is_taken_over_goes_on(database: SqliteDatabase, journal: Journal) -> None:
    before = Journal(database, "node_before")
    log = before.open(await create(database, "run_a", owner="node_before"))
    log.record(started())
    await log.stored()
    assert await database.read(journal.orphans) == ["run_a"]
    await database.write(
        lambda connection: (
            driver(connection).execute("UPDATE runs SET owner = ?", (TOKEN,)).rowcount
        )
    )
    assert await journal.open("run_a", seq=1).end(over())
    assert not await log.end(over())
    assert await database.read(journal.orphans) == []
    await before.close()
