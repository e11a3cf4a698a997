import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select

from insula.storage import counters, tables
from insula.storage.database import Database
from insula.storage.postgres import open_postgres

DATABASES = ("sqlite", "postgres")


def bump(app: str, workflow: str, status: str, origin: str = "ENDPOINT", delta: int = 1):
    return lambda connection: counters.bump(connection, app, workflow, status, origin, delta)


async def test_counts_by_any_part_of_the_key(database: Database) -> None:
    for unit in (
        bump("a", "w", "RUNNING", delta=3),
        bump("a", "w", "FAILED", "TEST"),
        bump("a", "v", "RUNNING"),
        bump("b", "w", "RUNNING"),
    ):
        await database.write(unit)

    def query(connection: Connection) -> list[int]:
        return [
            counters.count(connection, "a"),
            counters.count(connection, "a", "w"),
            counters.count(connection, "a", status="RUNNING"),
            counters.count(connection, "a", "w", "FAILED", "TEST"),
            counters.count(connection, "a", status=["RUNNING", "FAILED"], origin=["TEST"]),
            counters.count(connection, "a", status=[]),
            counters.count(connection, "nobody"),
        ]

    assert await database.read(query) == [5, 4, 4, 1, 1, 0, 0]


async def test_the_bumps_of_a_unit_that_fails_vanish_with_it(database: Database) -> None:
    def bad(connection: Connection) -> None:
        counters.bump(connection, "a", "w", "RUNNING", "ENDPOINT", 100)
        raise LookupError

    futures = [database.submit(bad if n % 3 == 1 else bump("a", "w", "RUNNING")) for n in range(9)]
    await asyncio.gather(*futures, return_exceptions=True)
    assert await database.read(lambda connection: counters.count(connection, "a")) == 6
    with pytest.raises(LookupError):
        await database.write(bad)
    await database.write(bump("a", "w", "RUNNING"))
    assert await database.read(lambda connection: counters.count(connection, "a")) == 7


async def test_a_group_writes_each_counter_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[object] = []
    insert = counters.insert_rows

    def listen(*given: Any) -> None:
        written.append(given)
        insert(*given)

    monkeypatch.setattr(counters, "insert_rows", listen)
    await asyncio.gather(*[database.submit(bump("a", "w", "RUNNING")) for _ in range(50)])
    assert 1 <= len(written) <= 2


async def test_more_counters_than_fit_one_statement(database: Database) -> None:
    def unit(connection: Connection) -> None:
        for number in range(1_201):
            counters.bump(connection, "a", f"{number}", "RUNNING", "ENDPOINT", 1)

    await database.write(unit)
    assert await database.read(lambda connection: counters.count(connection, "a")) == 1_201


statuses = st.sampled_from(["PENDING", "RUNNING", "COMPLETED"])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from("ab"), statuses, st.integers(-3, 3), st.booleans()), max_size=20
    )
)
async def test_counters_are_the_sum_of_what_was_stored(
    database: Database, changes: list[tuple[str, str, int, bool]]
) -> None:
    await database.write(lambda connection: connection.execute(delete(tables.counters)).rowcount)

    def unit(app: str, status: str, delta: int, ok: bool):
        def run(connection: Connection) -> None:
            counters.bump(connection, app, "w", status, "ENDPOINT", delta)
            if not ok:
                raise LookupError

        return run

    futures = [database.submit(unit(*change)) for change in changes]
    await asyncio.gather(*futures, return_exceptions=True)
    expected: Counter[tuple[str, str]] = Counter()
    for app, status, delta, ok in changes:
        expected[app, status] += delta if ok else 0
    for (app, status), number in expected.items():
        found = await database.read(
            lambda connection, app=app, status=status: counters.count(connection, app, "w", status)
        )
        assert found == number


async def test_slots_are_put_together_and_nothing_is_lost_meanwhile(database: Database) -> None:
    def use(slot: int, unit: Callable[[Connection], None]) -> Callable[[Connection], None]:
        def run(connection: Connection) -> None:
            before = connection.info.get("counter_slot", 0)
            counters.use_slot(connection, slot)
            unit(connection)
            counters.flush(connection)
            counters.use_slot(connection, before)

        return run

    for slot in (2, 3, 4):
        await database.write(use(slot, bump("a", "w", "COMPLETED", delta=slot)))
        await database.write(use(slot, bump("a", "w", "PENDING", delta=slot - 3)))
        await database.write(use(slot, bump("a", f"w{slot}", "RUNNING")))
    found = await database.read(partial(counters.scattered, after=None, limit=1))
    assert found == [("a", "w", "COMPLETED", "ENDPOINT")]
    rest = await database.read(partial(counters.scattered, after=found[0], limit=10))
    assert rest == [("a", "w", "PENDING", "ENDPOINT")]
    await asyncio.gather(
        database.write(bump("a", "w", "COMPLETED")),
        database.write(partial(counters.gather, keys=[*found, *rest])),
        database.write(use(2, bump("a", "w", "COMPLETED"))),
    )
    assert await database.read(partial(counters.scattered, after=None, limit=1)) in ([], found)
    await database.write(partial(counters.gather, keys=found))
    assert await database.read(partial(counters.scattered, after=None, limit=1)) == []
    rows = select(tables.counters.c.status, tables.counters.c.count)
    stored = await database.read(lambda connection: connection.execute(rows).all())
    assert sorted(map(tuple, stored)) == [("COMPLETED", 11), *[("RUNNING", 1)] * 3]


async def test_another_process_counts_while_slots_are_put_together(postgres_url: str) -> None:
    one, two = [await open_postgres(postgres_url, slot=slot) for slot in (1, 2)]
    count = bump("a", "w", "RUNNING")
    keys = [("a", "w", "RUNNING", "ENDPOINT")]
    for _ in range(20):
        together = partial(counters.gather, keys=keys)
        await asyncio.gather(two.submit(count, True), one.write(together), two.submit(count, True))
    assert await one.read(lambda connection: counters.count(connection, "a")) == 40
    await one.close()
    await two.close()
