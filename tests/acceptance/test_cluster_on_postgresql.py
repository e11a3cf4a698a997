"""Two servers on one PostgreSQL database and nothing else: it carries their messages, too."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Caller, Served
from tests.acceptance.loopback import Loopback, url_of
from tests.acceptance.test_cluster_faults import (
    ADMIN,
    app_at,
    begin_hanging,
    code,
    hanging,
    metric,
    request,
    until,
)
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]

CANCELS = 50 if SOAK else 10
ACROSS_P90 = 0.2
ROLE = "carrier"
"""Who carries: a role without any right to what is stored."""


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create()
    postgres_server.execute(f"CREATE ROLE {ROLE} LOGIN")
    yield url
    postgres_server.drop(url)
    postgres_server.execute(f"DROP ROLE {ROLE}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[list[Served]]:
    settings = {
        "INSULA_DATABASE_URL": database,
        "INSULA_CLUSTER_URL": database.replace("insula@", f"{ROLE}@"),
        "INSULA_ADMIN_KEY": ADMIN,
        "INSULA_DRAIN_SECONDS": "0",
        "INSULA_SANDBOX_WARM": "1",
    }
    folder = tmp_path_factory.mktemp("nodes")
    started = [Served(folder / f"node{number}", settings) for number in range(2)]
    try:
        yield [server.start() for server in started]
    finally:
        for server in started:
            if server.process is not None:
                server.stop()


@pytest.fixture
async def callers(pair: list[Served]) -> AsyncIterator[list[Caller]]:
    async with app_at(*pair) as made:
        for caller in made:
            await until(lambda c=caller: carried(c), 15, "the sessions that carry")
        yield made


async def carried(caller: Caller, word: float = 1.0) -> bool:
    return await metric(caller, "insula_signals_connected") == word


async def test_a_run_is_cancelled_through_the_node_that_does_not_execute_it(
    callers: list[Caller], loopback: Loopback, reserved: socket.socket
) -> None:
    here, there = callers
    path = f"workflows/{await hanging(here, url_of(reserved))}/runs"
    took: list[float] = []
    for number in range(CANCELS):
        tag = f"t{number}"
        async with here.stream(path, {"input": {"tag": tag}, "stream": True}) as stream:
            run_id = await stream.run_id()
            await loopback.arrived(tag)
            begun = time.monotonic()
            answer = await there.ask("POST", f"{path}/{run_id}/cancel")
            took.append(answer.at - begun)
            assert answer.status == 200, answer.body
            assert answer.json()["status"] == "CANCELLED"
            await loopback.left(tag)
            events = await stream.to_the_end()
            assert events[-1].data["status"] == "CANCELLED"
    await loopback.barrier()
    assert not [arrival for arrival in loopback.arrivals if "/late/" in arrival.path]
    took.sort()
    print(f"cancels across nodes: p50 {took[len(took) // 2]:.3f} s, most {took[-1]:.3f} s")  # noqa: T201
    if SOAK:  # on cores of its own; without messages: the rest of two seconds between renewals
        assert took[int(len(took) * 0.9)] < ACROSS_P90


async def test_a_stream_is_followed_from_the_other_node(callers: list[Caller]) -> None:
    here, there = callers
    words = " ".join(f"word{number}" for number in range(100))
    provider = {
        "provider": "mock",
        "model": "m",
        "messages": "Hello",
        "mock": {"replies": [{"text": words, "delay_ms": 2}]},
    }
    workflow_id = await here.push([{"type": "model", "key": "ask", "provider": provider}])
    path = f"workflows/{workflow_id}/runs"
    async with here.stream(path, {"stream": True}) as stream:
        run_id = await stream.run_id()
        async with there.stream(f"{path}/{run_id}/stream?from=0", method="GET") as other:
            seen = await other.to_the_end()
        own = await stream.to_the_end()
    assert [event.id for event in seen] == [event.id for event in own]
    assert [event.id for event in own] == list(range(1, len(own) + 1))


async def test_while_nothing_carries_everything_goes_on_a_little_later(
    callers: list[Caller],
    postgres_server: PostgresServer,
    loopback: Loopback,
    reserved: socket.socket,
) -> None:
    here, there = callers
    path = f"workflows/{await hanging(here, url_of(reserved))}/runs"
    light = f"workflows/{await here.push([code('a', 'return 1')])}/runs"
    run_id = await begin_hanging(here, loopback, path, "away")
    postgres_server.execute(f"ALTER ROLE {ROLE} NOLOGIN")
    try:
        postgres_server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"
        )
        for caller in callers:
            await until(lambda c=caller: carried(c, 0.0), 10, "its being away")
            answer = await caller.ask("GET", "/readyz")
            assert answer.status == 200
            assert b"degraded: PostgreSQL carries nothing now" in answer.body
        answer = await there.ask("POST", f"{path}/{run_id}/cancel")
        assert answer.status == 200, answer.body
        await loopback.left("away")
        waiting = await there.ok("POST", light, {"background": True})
        assert (await here.final(light, waiting["id"]))["status"] == "COMPLETED"
    finally:
        postgres_server.execute(f"ALTER ROLE {ROLE} LOGIN")
    for caller in callers:
        await until(lambda c=caller: carried(c), 15, "its being back")
    run_id = await begin_hanging(here, loopback, path, "back")
    answer = await there.ask("POST", f"{path}/{run_id}/cancel")
    assert answer.status == 200, answer.body


async def test_what_a_killed_node_had_begun_is_finished_at_the_other(
    callers: list[Caller], pair: list[Served], loopback: Loopback, reserved: socket.socket
) -> None:
    here, there = callers
    workflow_id = await here.push(
        [
            request("once", f"{url_of(reserved)}/answer/once", "wait"),
            code("wait", "await util.sleep(1000); return 1", "last"),
            request("last", f"{url_of(reserved)}/answer/last"),
        ]
    )
    path = f"workflows/{workflow_id}/runs"
    runs = [await here.ok("POST", path, {"background": True}) for _ in range(3)]
    await loopback.arrived("once", 3)
    following = [asyncio.create_task(there.final(path, run["id"])) for run in runs]
    await asyncio.sleep(0.3)  # the results of the first step are stored
    await asyncio.to_thread(pair[0].kill)
    ended = await asyncio.wait_for(asyncio.gather(*following), 30)
    assert [run["status"] for run in ended] == ["COMPLETED"] * 3
    assert len(loopback.of("once")) == 3  # what had ended is not done again
