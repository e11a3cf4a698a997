"""What was told of a run goes with the run's data, even where two processes write the two."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import Connection, insert

from insula.kit.clock import now_ms
from insula.runs import retention
from insula.storage.dialect import driver
from insula.storage.postgres import PostgresDatabase, open_postgres
from insula.storage.tables import deliveries as table
from insula.storage.tables import runs
from insula.webhooks import deliveries

_RUN = {
    "id": "run_1",
    "app_id": "app_1",
    "workflow_app_id": "app_1",
    "workflow_id": "work_1",
    "root_id": "run_1",
    "status": "COMPLETED",
    "origin": "ENDPOINT",
    "retention_due_at": 1,
    "ended_at": 1,
    "created_at": 1,
    "updated_at": 1,
}
_TOLD = {
    "webhook_id": "hook_1",
    "id": "msg_1",
    "event": "run.completed",
    "body": b"what the run has given",
    "status": deliveries.PENDING,
    "attempts": 1,
    "next_at": 5,
    "thing_id": "run_1",
    "created_at": 1,
    "updated_at": 1,
}


@pytest.fixture
async def pair(tables_url: str) -> AsyncIterator[tuple[PostgresDatabase, PostgresDatabase]]:
    one, two = await open_postgres(tables_url, 1), await open_postgres(tables_url, 1)

    def unit(connection: Connection) -> None:
        connection.execute(insert(runs).values(_RUN))
        connection.execute(insert(table).values(_TOLD))

    await one.write(unit)
    yield one, two
    await one.close()
    await two.close()


def erase(connection: Connection) -> int:
    return retention.erase_due(connection, now_ms(), 10).runs


async def read(database: PostgresDatabase, query: str) -> object:
    return await database.read(lambda connection: driver(connection).execute(query).fetchone()[0])


class Slowly:
    """A unit that stands still before its commit until it is let go."""

    def __init__(self, unit: partial[None] | None = None) -> None:
        self._unit = unit or erase
        self._loop = asyncio.get_running_loop()
        self.there = asyncio.Event()
        self.go_on = threading.Event()

    def __call__(self, connection: Connection) -> object:
        found = self._unit(connection)
        self._loop.call_soon_threadsafe(self.there.set)
        self.go_on.wait(1.5)  # the server ends who holds locks for longer
        return found


async def done_or_waiting(task: "asyncio.Future[object]", database: PostgresDatabase) -> None:
    """Return when a write is stored, or waits for what the other one holds."""
    while not task.done():
        if await read(database, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
        await asyncio.sleep(0.01)


async def test_what_is_given_up_of_an_erased_run_loses_its_words(
    pair: tuple[PostgresDatabase, PostgresDatabase],
) -> None:
    one, _ = pair
    await one.write(erase)
    assert await read(one, "SELECT body FROM deliveries") is not None  # it is still to be told
    await one.write(partial(deliveries.give_up, webhook_id="hook_1", now=9))
    assert await read(one, "SELECT status FROM deliveries") == deliveries.FAILED
    assert await read(one, "SELECT body FROM deliveries") is None


@pytest.mark.parametrize("first", ["erased", "settled"])
async def test_what_has_arrived_while_its_run_is_erased_loses_its_words(
    pair: tuple[PostgresDatabase, PostgresDatabase], first: str
) -> None:
    one, two = pair
    row = await one.read(partial(deliveries.find, webhook_id="hook_1", delivery_id="msg_1"))
    assert row is not None
    values = {"status": deliveries.DELIVERED, "next_at": None}
    settle = partial(deliveries.settle, row=row, claimed=5, values=values)
    slowly = Slowly(None if first == "erased" else settle)
    beginning = one.submit(slowly, fenced=first == "erased")
    await slowly.there.wait()
    if first == "erased":
        following: asyncio.Future[object] = asyncio.ensure_future(two.write(settle))
    else:
        following = two.submit(erase, fenced=True)
    await done_or_waiting(following, one)
    slowly.go_on.set()
    await beginning
    await following
    await two.submit(erase, fenced=True)  # what was held then is erased a second later
    assert await read(two, "SELECT count(*) FROM runs WHERE erased_at IS NULL") == 0
    assert await read(two, "SELECT status FROM deliveries") == deliveries.DELIVERED
    assert await read(two, "SELECT body FROM deliveries") is None
