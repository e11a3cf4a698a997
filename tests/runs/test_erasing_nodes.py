"""Several processes erase the same due rows at once: each row goes once, nobody waits for another,
and one that is killed in the midst leaves nothing half done.
"""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import Connection
from tests.postgres import PostgresServer
from tests.runs.cluster_platform import Node, Nodes, open_nodes
from tests.runs.platform import code

from insula.kit.clock import now_ms
from insula.runs import erasing, reclaim, retention
from insula.runs.erasing import Traffic, erase_due, remove_old_keys
from insula.runs.reclaim import remove_old_rows
from insula.storage.dialect import driver

RUNS = 600
DAY = 24 * 60 * 60 * 1000
_FILL = f"""
    INSERT INTO runs (id, app_id, workflow_app_id, workflow_id, root_id, depth, hidden, status,
                      origin, background, options, owner, seq, error, credits, retention_due_at,
                      ended_at, created_at, updated_at)
    SELECT 'run_' || lpad(n::text, 22, '0'), 'app_' || n % 3, 'app_1', 'work_1',
           'run_' || lpad(n::text, 22, '0'), 0, false,
           CASE WHEN n % 4 = 0 THEN 'FAILED' ELSE 'COMPLETED' END,
           'ENDPOINT', false, '{{"x": 1}}', 'node_x', 3, CASE WHEN n % 4 = 0 THEN 'words' END, 2.0,
           n, n, {DAY} * (n % 2), n
    FROM generate_series(1, {RUNS}) n"""
_AROUND = (
    "INSERT INTO apps (id, name, verified, settings, created_at, updated_at)"
    " SELECT 'app_' || n, 'An app', false, '{}', 1, 1 FROM generate_series(0, 2) n",
    "INSERT INTO run_data (run_id, input) SELECT id, 'in' FROM runs",
    "INSERT INTO run_events (run_id, seq, events) SELECT id, 3, '[]' FROM runs",
    "INSERT INTO files (id, app_id, run_id, filename, mimetype, size, storage, visibility,"
    " created_at) SELECT 'file_' || substr(id, 5), app_id, id, 'x', 'text/plain', 1, 'TEMPORARY',"
    " 'PRIVATE', 1 FROM runs",
    "INSERT INTO deliveries (webhook_id, id, event, body, status, attempts, log, thing_id,"
    " created_at, updated_at) SELECT 'hook_1', 'msg_' || substr(id, 5), 'run.completed', 'told',"
    " 'DELIVERED', 1, '[]', id, 1, 1 FROM runs",
    "INSERT INTO counters (app_id, workflow_id, status, origin, slot, count)"
    " SELECT app_id, workflow_id, status, origin, 1, count(*) FROM runs"
    " GROUP BY app_id, workflow_id, status, origin",
)
_LEFT = {
    "runs": "SELECT count(*) FROM runs WHERE erased_at IS NULL OR error = 'words'",
    "data": "SELECT count(*) FROM run_data",
    "events": "SELECT count(*) FROM run_events",
    "files": "SELECT count(*) FROM files",
    "told": "SELECT count(*) FROM deliveries WHERE body IS NOT NULL",
}


@pytest.fixture
async def nodes(
    tmp_path: Path, tables_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Nodes]:
    monkeypatch.setattr(erasing, "ERASE_SECONDS", 3600)  # tests erase and remove themselves
    monkeypatch.setattr(reclaim, "remove_old_rows", AsyncMock())
    async with open_nodes(tmp_path, tables_url) as opened:
        yield opened


@pytest.fixture
async def pair(nodes: Nodes) -> tuple[Node, Node]:
    return await nodes.open(), await nodes.open()


@pytest.fixture
def deadlocks(postgres_server: PostgresServer) -> Iterator[None]:
    """What the server logs of transactions that waited for each other crosswise."""
    log = postgres_server.folder / "log"
    before = log.stat().st_size
    yield
    with log.open("rb") as written:
        written.seek(before)
        assert b"deadlock" not in written.read()


async def fill(node: Node) -> None:
    """Put runs that are due there, with all that goes with them."""

    def unit(connection: Connection) -> None:
        for statement in (_FILL, *_AROUND):
            driver(connection).execute(statement)

    await node.services.database.write(unit)


async def left(node: Node) -> dict[str, int]:
    """Count what is not erased."""
    return {name: (await node.platform.rows(query))[0][0] for name, query in _LEFT.items()}


async def counted(node: Node) -> int:
    query = "SELECT coalesce(sum(count), 0) FROM counters WHERE status IN ('COMPLETED', 'FAILED')"
    return int((await node.platform.rows(query))[0][0])


async def test_two_who_erase_at_once_erase_each_run_once(
    pair: tuple[Node, Node], deadlocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_LARGEST", 10)  # so that they meet often
    await fill(pair[0])
    done = await asyncio.gather(*(erase_due(node.services) for node in (*pair, *pair)))
    done.append(await erase_due(pair[0].services))  # what the others held when one looked last
    assert sum(done) == RUNS
    assert await left(pair[0]) == dict.fromkeys(_LEFT, 0)
    assert await counted(pair[1]) == RUNS
    erased = [node.services.metrics.erased._value.get() for node in pair]
    assert sum(erased) == RUNS
    assert all(erased), "one of them had nothing to do"


async def test_two_who_remove_old_keys_at_once_remove_each_once(
    pair: tuple[Node, Node], deadlocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "_LARGEST", 10)  # so that they meet often
    await pair[0].platform.change(
        "INSERT INTO idempotency (app_id, method, path, key, body_hash, created_at)"
        " SELECT 'app_1', 'POST', '/runs', n::text, '', 1 FROM generate_series(1, 600) n"
    )
    done = await asyncio.gather(*(remove_old_keys(node.services) for node in (*pair, *pair)))
    done.append(await remove_old_keys(pair[0].services))  # what the others held
    assert sum(done) == 600
    assert (await pair[0].platform.rows("SELECT count(*) FROM idempotency"))[0][0] == 0


async def test_a_node_without_runs_gives_way_to_those_of_others(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    await two.sweeper.sweep()  # it learns of the other
    assert two.services.nodes == 2
    flow = await one.acme.make(code("A", "wait(a)"))
    assert not await Traffic(two.services).is_busy()
    run = await one.acme.run(flow, background=True)
    await one.platform.reached("a")
    assert await Traffic(two.services).is_busy()
    one.platform.gate("a").opened.set()
    await one.platform.idle()
    monkeypatch.setattr(erasing, "_QUIET_SECONDS", 3600.0)
    assert await Traffic(two.services).is_busy()  # it was made not long ago
    await two.platform.change("UPDATE runs SET id = 'run_0' WHERE id = :id", id=run["id"])
    assert not await Traffic(two.services).is_busy()


async def test_rows_that_two_remove_at_once_are_counted_once(
    pair: tuple[Node, Node], deadlocks: None
) -> None:
    await fill(pair[0])
    await erase_due(pair[0].services)
    await asyncio.gather(*(remove_old_rows(node.services) for node in (*pair, *pair)))
    assert (await pair[0].platform.rows("SELECT count(*) FROM runs"))[0][0] == 0
    assert await counted(pair[0]) == 0
    totals = await pair[0].platform.rows(
        "SELECT day, status, sum(runs), sum(credits) FROM daily_totals GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert [tuple(map(str, row)) for row in totals] == [
        ("0", "COMPLETED", "150", "300.0"),
        ("0", "FAILED", "150", "300.0"),
        ("1", "COMPLETED", "300", "600.0"),
    ]


async def test_who_erases_waits_for_nobody_and_leaves_what_another_holds(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    await fill(one)
    held, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> int:
        found = retention.erase_due(connection, now_ms(), 50).runs
        loop.call_soon_threadsafe(held.set)
        go_on.wait(5)
        return found

    erasing_slowly = one.services.database.submit(slow, fenced=True)
    await held.wait()
    try:
        quick = await asyncio.wait_for(erase_due(two.services), 4)
        assert quick == RUNS - 50
    finally:
        go_on.set()
    assert await erasing_slowly == 50
    assert await left(two) == dict.fromkeys(_LEFT, 0)


async def test_a_node_whose_clock_is_ahead_erases_nothing_early(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    await fill(one)
    tomorrow = now_ms() + DAY
    await one.platform.change("UPDATE runs SET retention_due_at = :at", at=tomorrow)
    monkeypatch.setattr(erasing, "now_ms", lambda: tomorrow + 365 * DAY)
    assert await erase_due(one.services) == 0
    await one.platform.change("UPDATE runs SET retention_due_at = :at", at=tomorrow - 2 * DAY)
    assert await erase_due(one.services) == RUNS


_KILLED = """
import asyncio, sys, time
from insula.kit.clock import now_ms
from insula.runs import retention
from insula.storage import postgres

postgres._WRITING = postgres._WRITING._replace(idle_in_transaction_ms=60_000)
postgres._GROUP_DEADLINE = 60.0

def unit(connection):
    print(retention.erase_due(connection, now_ms(), 50).runs, flush=True)
    time.sleep(60)

async def main():
    database = await postgres.open_postgres(sys.argv[1], readers=1)
    await database.submit(lambda c: retention.erase_due(c, now_ms(), 30), fenced=True)
    await database.submit(unit, fenced=True)

asyncio.run(main())
"""


async def test_one_that_is_killed_in_the_midst_has_erased_whole_batches(
    nodes: Nodes, tables_url: str
) -> None:
    node = await nodes.open()
    await fill(node)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED, tables_url, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).strip() == b"50"
        before = await left(node)
        assert before == dict.fromkeys(_LEFT, RUNS - 30)
        assert await asyncio.wait_for(erase_due(node.services), 30) == RUNS - 80
    finally:
        process.kill()
        await process.wait()
    async with asyncio.timeout(30):  # until the server has seen that it is gone
        rest = 0
        while rest < 50:
            rest += await erase_due(node.services)
            await asyncio.sleep(0.01)
    assert rest == 50
    assert await left(node) == dict.fromkeys(_LEFT, 0)
    assert await counted(node) == RUNS
