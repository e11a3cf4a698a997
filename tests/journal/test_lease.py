import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update
from tests.journal.rows import TOKEN, create, over, run_row, started

from insula.engine.ports import Fenced
from insula.errors import Unavailable
from insula.journal import lease as module
from insula.journal.journal import Journal
from insula.journal.lease import (
    Lease,
    LeaseLost,
    _take_back,
    cancel_requested,
    count_living,
    lapse_others,
    lives,
    node_of,
    remove_lapsed,
)
from insula.kit.clock import now_ms
from insula.storage.database import Database
from insula.storage.dialect import driver
from insula.storage.dialect import now_ms as database_ms
from insula.storage.sqlite import open_sqlite
from insula.storage.sqlite_connection import driver as sqlite_driver
from insula.storage.tables import nodes

DATABASES = ("sqlite", "postgres")


async def node(database: Database, token: str, expires_in: int) -> None:
    row = {"token": token, "name": "x", "expires_at": now_ms() + expires_in, "started_at": 1}
    await database.write(lambda connection: connection.execute(insert(nodes).values(row)).rowcount)


async def tokens(database: Database) -> list[str]:
    return await database.read(
        lambda connection: [
            token for (token,) in driver(connection).execute("SELECT token FROM nodes")
        ]
    )


async def test_a_run_pauses_while_the_lease_has_run_out(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    lease = Lease(database, journal, "here")
    await lease.take()
    assert journal.lease_until is not None
    assert 4 < journal.lease_until - time.clock_gettime(time.CLOCK_BOOTTIME) < module.SECONDS
    await log.stored()
    journal.lease_until = time.clock_gettime(time.CLOCK_BOOTTIME)
    waiting = asyncio.create_task(log.stored())
    await asyncio.sleep(0)
    assert journal.stalled(asyncio.get_running_loop().time()) == ["run_a"]
    assert not waiting.done()
    await lease.renew()
    await waiting
    assert journal.stalled(asyncio.get_running_loop().time()) == []
    await lease.release()
    assert await tokens(database) == []


async def test_a_closed_journal_waits_for_no_lease(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    journal.lapse()
    waiting = asyncio.create_task(log.stored())
    await asyncio.sleep(0)
    await journal.close()
    with pytest.raises(Fenced):
        await waiting


async def test_an_expired_lease_is_never_renewed(database: Database, journal: Journal) -> None:
    watch = journal.database_clock
    lease = Lease(database, journal, "here")
    await lease.take()
    await database.write(
        lambda c: driver(c).execute("UPDATE nodes SET expires_at = expires_at - 6001").rowcount
    )
    assert await database.read(lambda connection: lives(connection, TOKEN, watch))  # in its grace
    with pytest.raises(LeaseLost):
        await lease.renew()
    assert journal.lapsed()


async def test_who_rejoins_keeps_what_nobody_took_over_and_no_tree_in_part(
    database: Database, journal: Journal
) -> None:
    kept: list[frozenset[str]] = []
    lease = Lease(database, journal, "here", rejoined=kept.append)
    await lease.take()
    await create(database, "run_mine")
    await create(database, "run_child", root_id="run_mine", depth=1)
    await create(database, "run_taken", owner="node_other")
    await create(database, "run_left", root_id="run_taken", depth=1)
    await create(database, "run_over", ended_at=5)
    await lease.rejoin()
    assert kept == [frozenset(("run_mine", "run_child"))]
    assert journal.token == f"{TOKEN}~1"
    assert node_of(journal.token) == node_of(TOKEN) == TOKEN
    assert not journal.lapsed()
    assert (await run_row(database, "run_mine")).owner == journal.token
    assert (await run_row(database, "run_left")).owner == TOKEN
    assert (await run_row(database, "run_over")).owner == TOKEN


async def test_a_rejoining_that_broke_off_is_completed_by_the_next(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(database, journal, "here")
    await lease.take()
    await create(database, "run_a")
    write = database.write

    async def breaking(unit: Callable[[Connection], Any]) -> Any:
        await write(unit)  # stored, and the answer does not come back
        if isinstance(unit, partial):
            raise Unavailable("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", breaking)
        with pytest.raises(Unavailable):
            await lease.rejoin()
    assert journal.lapsed()
    assert (await run_row(database, "run_a")).owner == f"{TOKEN}~1"
    await create(database, "run_b")
    await lease.rejoin()
    assert journal.token == f"{TOKEN}~2"
    assert (await run_row(database, "run_a")).owner == (await run_row(database, "run_b")).owner
    assert (await run_row(database, "run_a")).owner == journal.token


async def test_a_batch_sent_under_a_lost_lease_is_stored_under_the_next(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    lease = Lease(database, journal, "here")
    await lease.take()
    await database.write(partial(_take_back, f"{TOKEN}~1", [TOKEN]))
    journal.lapse()  # the rejoining is stored, and this process does not know yet
    log.record(started())
    waiting = asyncio.create_task(log.stored())
    while log._flight is None:  # noqa: ASYNC110  # there is nothing to wait on
        await asyncio.sleep(0)
    journal.adopt(f"{TOKEN}~1", journal.clock() + 5)
    await waiting
    assert not log.fenced
    assert (await run_row(database, "run_a")).seq == 1


async def test_an_end_sent_under_a_lost_lease_is_stored_under_the_next(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    await database.write(partial(_take_back, f"{TOKEN}~1", [TOKEN]))
    journal.lapse()
    ending = asyncio.create_task(log.end(over()))
    while not log._under:  # noqa: ASYNC110  # there is nothing to wait on
        await asyncio.sleep(0)
    journal.adopt(f"{TOKEN}~1", journal.clock() + 5)
    assert await ending


async def test_an_end_of_a_run_that_is_another_s_is_not_sent_again(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a", owner="node_other"))
    journal.lapse()
    ending = asyncio.create_task(log.end(over()))
    while not log._under:  # noqa: ASYNC110  # there is nothing to wait on
        await asyncio.sleep(0)
    log.drop()
    journal.adopt(f"{TOKEN}~1", journal.clock() + 5)
    assert not await ending
    assert (await run_row(database, "run_a")).ended_at is None


async def test_rows_of_leases_long_lapsed_go(database: Database, journal: Journal) -> None:
    await node(database, "node_recent", -10_000)
    await node(database, "node_old", -100_000)
    await database.write(partial(remove_lapsed, token=TOKEN, watch=journal.database_clock))
    assert await tokens(database) == ["node_recent"]


async def test_after_a_sleep_of_the_machine_a_process_keeps_its_own(
    database: Database, journal: Journal
) -> None:
    lease = Lease(database, journal, "here", exclusive=True)
    await lease.take()
    asleep = update(nodes).values(expires_at=nodes.c.expires_at - 100_000)
    await database.write(lambda connection: connection.execute(asleep).rowcount)
    watch = journal.database_clock
    await database.write(partial(remove_lapsed, token=journal.token, watch=watch))
    await lease.renew()
    assert await tokens(database) == [TOKEN]


async def test_the_holder_of_the_folder_lapses_all_others_and_is_never_fenced(
    database: Database, journal: Journal
) -> None:
    await node(database, "node_old", 60_000)
    lease = Lease(database, journal, "here", exclusive=True)
    await lease.take()
    await lease.renew()
    assert await tokens(database) == [TOKEN]
    assert journal.lease_until is None


async def test_a_lease_that_was_taken_away_fences_at_once(
    database: Database, journal: Journal
) -> None:
    lease = Lease(database, journal, "here")
    await lease.take()
    await database.write(lambda connection: lapse_others(connection, "node_other"))
    with pytest.raises(LeaseLost, match="here"):
        await lease.renew()
    assert journal.lapsed()


async def test_renewals_go_on_though_one_fails(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY", 0)
    monkeypatch.setattr(module, "TRIED_EVERY", 0)
    lease = Lease(database, journal, "here", exclusive=True)
    await lease.take()
    outcomes = [Unavailable("the disk is full"), None, TimeoutError(), LeaseLost("gone")]
    renewed = []

    async def renew() -> None:
        renewed.append(lease.renewed)
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(lease, "renew", renew)
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(lease.keep(), 10)
    assert renewed == [True, False, True, False]


async def test_a_lost_lease_is_replaced_by_another(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY", 0)
    monkeypatch.setattr(module, "TRIED_EVERY", 0)
    rejoined = asyncio.Event()
    lease = Lease(database, journal, "here", rejoined=lambda _: rejoined.set())
    await lease.take()
    await database.write(lambda connection: lapse_others(connection, "node_other"))
    keeping = asyncio.create_task(lease.keep())
    await asyncio.wait_for(rejoined.wait(), 10)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert await tokens(database) == [journal.token]
    assert journal.token != TOKEN


async def test_a_renewal_passes_on_what_is_to_be_cancelled(
    database: Database, journal: Journal
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
    database: Database, journal: Journal
) -> None:
    await node(database, "node_alive", 6_000)
    await node(database, "node_in_grace", -500)
    await node(database, "node_lapsed", -1_500)
    for owner in (TOKEN, "node_alive", "node_in_grace", "node_lapsed", "node_unknown", "a", "z"):
        await create(database, f"run_{owner}", owner=owner)
    await create(database, "run_queued", owner=None)
    await create(database, "run_ended", owner="node_lapsed", ended_at=1)
    orphans = await database.read(journal.orphans)
    assert orphans == ["run_a", "run_node_lapsed", "run_node_unknown", "run_z"]


async def test_who_has_a_lease_from_before_the_clock_went_back_is_dead(
    database: Database, journal: Journal
) -> None:
    await node(database, "node_ahead", 60_000)
    await create(database, "run_a", owner="node_ahead")
    assert await database.read(journal.orphans) == ["run_a"]


@pytest.mark.parametrize("step", [-3_600_000, -2_000, 8_000, 3_600_000])
async def test_nobody_is_dead_while_the_database_s_clock_was_set_a_moment_ago(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    await node(database, "node_alive", 6_000)
    await create(database, "run_a", owner="node_alive")
    await create(database, "run_b", owner="node_unknown")
    await database.read(journal.orphans)
    moment = journal.clock()
    monkeypatch.setattr(journal.database_clock, "clock", lambda: moment)
    monkeypatch.setattr(module, "now_ms", lambda connection: database_ms(connection) + step)
    assert await database.read(journal.orphans) == ["run_b"]
    watch = journal.database_clock
    await database.write(partial(remove_lapsed, token=TOKEN, watch=watch))
    assert await tokens(database) == ["node_alive"]
    moment += 9.9
    monkeypatch.setattr(module, "now_ms", lambda connection: database_ms(connection) + step + 9_900)
    assert await database.read(lambda connection: lives(connection, "node_alive", watch))
    moment += 0.2
    assert await database.read(journal.orphans) == ["run_a", "run_b"]


async def test_living_processes_are_counted(database: Database, journal: Journal) -> None:
    count = partial(count_living, watch=journal.database_clock)
    assert await database.read(count) == 0
    await node(database, "node_alive", 6_000)
    await node(database, "node_in_grace", -500)
    await node(database, "node_lapsed", -1_500)
    assert await database.read(count) == 2


async def test_the_queries_of_every_second_go_by_the_index_of_live_runs(tmp_path: Path) -> None:
    database = await open_sqlite(tmp_path / "insula.db")
    journal = Journal(database, TOKEN)
    texts: list[str] = []
    await database.write(
        lambda connection: sqlite_driver(connection).set_trace_callback(texts.append)
    )
    await create(database, "run_a", owner="node_gone")
    texts.clear()
    await database.write(journal.orphans)
    await database.write(lambda connection: cancel_requested(connection, TOKEN))
    queries = [text for text in texts if "FROM runs" in text]
    assert len(queries) == 3
    for text in queries:
        rows = await database.read(
            lambda connection, text=text: (
                driver(connection).execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
            )
        )
        plan = [row[3] for row in rows if " runs" in row[3]]
        assert plan
        assert all(re.search(r"SEARCH runs USING .*INDEX runs_live \(owner", line) for line in plan)
    await database.close()


async def test_what_is_taken_over_goes_on(database: Database, journal: Journal) -> None:
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
