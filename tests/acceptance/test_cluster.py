"""Two servers on one PostgreSQL database, a broker between them: real processes all of them."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Caller, Event, Served, clients
from tests.acceptance.loopback import Loopback, url_of
from tests.nats import NatsServer, nats_session
from tests.postgres import PostgresServer, postgres_server

__all__ = ["nats_session", "postgres_server"]

CANCELS = 200 if SOAK else 30
ACROSS_P99 = 0.1
TAKEN_WITHIN = 10.0
ROLLING = 60 if SOAK else 30
ADMIN = "insadm_" + "c" * 40


@dataclass(frozen=True, slots=True)
class Cluster:
    """Its servers, and the same app at each."""

    served: list[Served]
    callers: list[Caller]
    url: str


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="module")
def processes(
    tmp_path_factory: pytest.TempPathFactory, database: str, nats_session: NatsServer
) -> Iterator[list[Served]]:
    settings = {
        "INSULA_DATABASE_URL": database,
        "INSULA_CLUSTER_URL": nats_session.url,
        "INSULA_ADMIN_KEY": ADMIN,
        "INSULA_DRAIN_SECONDS": "1",
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
async def cluster(processes: list[Served], reserved: socket.socket) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(clients(server)) for server in processes]
        admin = Caller(opened[0].session, processes[0], "", ADMIN)
        made = await admin.ok("POST", "/apps", {"name": "Acme"})
        callers = [Caller(each.session, each.served, made["id"], made["key"]) for each in opened]
        yield Cluster(processes, callers, url_of(reserved))


def request(key: str, url: str, *to: str) -> dict[str, Any]:
    step = {"type": "http_request", "key": key, "method": "POST", "url": url}
    return {**step, "destinations": list(to)}


def code(key: str, text: str, *to: str) -> dict[str, Any]:
    return {"type": "code", "key": key, "code": text, "destinations": list(to)}


async def test_a_run_is_cancelled_through_the_node_that_does_not_execute_it(
    cluster: Cluster, loopback: Loopback
) -> None:
    here, there = cluster.callers
    hanging = await here.push(
        [
            request("busy", f"{cluster.url}/hang/{{{{input.tag}}}}", "late"),
            request("late", f"{cluster.url}/late/{{{{input.tag}}}}"),
        ]
    )
    spinning = await here.push(
        [
            code("busy", "while (true) {}", "late"),
            request("late", f"{cluster.url}/late/{{{{input.tag}}}}"),
        ]
    )
    took: list[float] = []
    for number in range(CANCELS):
        workflow_id = (hanging, spinning)[number % 2]
        path, tag = f"workflows/{workflow_id}/runs", f"t{number}"
        async with here.stream(path, {"input": {"tag": tag}, "stream": True}) as stream:
            run_id = await stream.run_id()
            await stream.running("busy")
            if workflow_id == hanging:
                await loopback.arrived(tag)
            begun = time.monotonic()
            answer = await there.ask("POST", f"{path}/{run_id}/cancel")
            took.append(answer.at - begun)
            assert answer.status == 200, answer.body
            assert answer.json()["status"] == "CANCELLED"
            if workflow_id == hanging:
                await loopback.left(tag)
            events = await stream.to_the_end()
            assert events[-1].data["status"] == "CANCELLED"
    await loopback.barrier()
    assert not [arrival for arrival in loopback.arrivals if "/late/" in arrival.path]
    took.sort()
    print(f"cancels across nodes: p50 {took[len(took) // 2]:.3f} s, most {took[-1]:.3f} s")  # noqa: T201
    if SOAK:  # on cores of its own
        assert took[int(len(took) * 0.99)] < ACROSS_P99


async def test_a_stream_is_followed_from_the_other_node(cluster: Cluster) -> None:
    here, there = cluster.callers
    words = " ".join(f"word{number}" for number in range(300))
    provider = {
        "provider": "mock",
        "model": "m",
        "messages": "Hello",
        "mock": {"replies": [{"text": words, "delay_ms": 1}]},
    }
    workflow_id = await here.push([{"type": "model", "key": "ask", "provider": provider}])
    path = f"workflows/{workflow_id}/runs"
    async with here.stream(path, {"stream": True}) as stream:
        run_id = await stream.run_id()
        other = f"{path}/{run_id}/stream"
        seen: list[int] = []
        for turn in range(6):  # a client that is cut off again and again changes nodes
            caller = (there, here)[turn % 2]
            last = seen[-1] if seen else 0
            async with caller.stream(f"{other}?from={last}", method="GET") as part:
                if turn < 5:
                    await part.until(lambda part=part: len(part.events) >= 2 or _over(part), "two")
                else:
                    await part.to_the_end()
                seen += [event.id for event in part.events if event.id is not None]
            if part.events and _over(part):
                break
        own = await stream.to_the_end()
    assert seen == [event.id for event in own] == list(range(1, len(own) + 1))


def _over(stream: Any) -> bool:
    return (
        bool(stream.events)
        and stream.events[-1].data.get("status") == "COMPLETED"
        and (stream.events[-1].name == "run")
    )


async def test_what_a_killed_node_had_begun_is_finished_at_the_other(
    cluster: Cluster, loopback: Loopback
) -> None:
    here, there = cluster.callers
    workflow_id = await here.push(
        [
            request("once", f"{cluster.url}/answer/once", "wait"),
            code("wait", "await util.sleep(2500); return 1", "last"),
            request("last", f"{cluster.url}/answer/last"),
        ]
    )
    path = f"workflows/{workflow_id}/runs"
    runs = [await here.ok("POST", path, {"background": True}) for _ in range(5)]
    await loopback.arrived("once", 5)
    following = [asyncio.create_task(there.final(path, run["id"])) for run in runs]
    await asyncio.sleep(0.5)  # the results of the first step are stored
    killed = time.monotonic()
    await asyncio.to_thread(cluster.served[0].kill)
    ended = await asyncio.wait_for(asyncio.gather(*following), 30)
    took = time.monotonic() - killed
    assert [run["status"] for run in ended] == ["COMPLETED"] * 5
    assert len(loopback.of("once")) == 5  # what had ended is not done again
    print(f"finished at the other node after {took:.1f} s")  # noqa: T201
    if SOAK:
        assert took < TAKEN_WITHIN + 2.5  # the step itself takes as long
    await asyncio.to_thread(cluster.served[0].start)


async def _roll(cluster: Cluster) -> None:
    for server in cluster.served:
        assert await asyncio.to_thread(server.stop) == 0, server.log[-2000:]
        await asyncio.to_thread(server.start)


async def _followed(cluster: Cluster, path: str, number: int) -> tuple[list[Event], int]:
    """Follow a run to its end, at the other node whenever a stream breaks; say how often."""
    events: list[Event] = []
    for turn in itertools.count(number):
        caller = cluster.callers[turn % 2]
        after = str(events[-1].id) if events else "0"
        try:
            async with caller.stream(path, method="GET", headers={"last-event-id": after}) as told:
                events += await told.to_the_end()
        except (OSError, aiohttp.ClientError, AssertionError):  # it is down, or going
            await asyncio.sleep(0.1)
        if events and events[-1].data.get("ended_at") is not None:
            return events, turn - number
    raise AssertionError


async def test_a_rolling_restart_loses_no_stream(cluster: Cluster) -> None:
    here, _ = cluster.callers
    pieces = [code(f"s{n}", "await util.sleep(300); return 1", f"s{n + 1}") for n in range(29)]
    workflow_id = await here.push([*pieces, code("s29", "return 2")])
    path = f"workflows/{workflow_id}/runs"
    runs = [
        await caller.ok("POST", path, {"background": True})
        for caller in (*cluster.callers, *cluster.callers)
    ]
    rolling = asyncio.create_task(_roll(cluster))
    async with asyncio.timeout(60):
        followed = await asyncio.gather(
            *(_followed(cluster, f"{path}/{run['id']}/stream", n) for n, run in enumerate(runs))
        )
    await rolling
    assert sum(breaks for _, breaks in followed) >= 2  # half of them were at the first to go
    for run, (events, _) in zip(runs, followed, strict=True):
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert events[-1].data["status"] == "COMPLETED"
        assert events[-1].data == await here.ok("GET", f"{path}/{run['id']}")
        ended = [e.data["key"] for e in events if e.name == "step" and "end" in e.data]
        assert ended == [f"s{n}" for n in range(30)]


async def test_a_rolling_restart_under_load_loses_no_run(cluster: Cluster) -> None:
    here, _ = cluster.callers
    workflow_id = await here.push(
        [
            code("a", "await util.sleep(300); return 1", "b"),
            code("b", "await util.sleep(300); return 2"),
        ]
    )
    path = f"workflows/{workflow_id}/runs"
    accepted: set[str] = set()

    async def one(number: int) -> None:
        headers = {"idempotency-key": f"rolling-{number}"}
        until = time.monotonic() + 30
        while time.monotonic() < until:
            caller = cluster.callers[number % 2 if time.monotonic() % 1 < 0.5 else 1 - number % 2]
            try:
                body = {"background": number % 3 == 0}
                answer = await caller.ask("POST", path, body, headers=headers)
            except OSError:  # it is down just now; a client tries the other one
                await asyncio.sleep(0.1)
                continue
            if answer.status == 200:
                accepted.add(answer.json()["id"])
                return
            assert answer.status == 503, answer.body
            await asyncio.sleep(0.1)
        raise AssertionError(f"run {number} was never accepted")

    rolling = asyncio.create_task(_roll(cluster))
    tasks = []
    for number in range(ROLLING):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0.15)
    await asyncio.gather(*tasks)
    await rolling
    assert len(accepted) == ROLLING
    ended = await asyncio.gather(*(here.final(path, run_id) for run_id in accepted))
    assert [run["status"] for run in ended] == ["COMPLETED"] * ROLLING


async def test_the_database_away_for_a_moment_harms_no_run(
    cluster: Cluster, postgres_server: PostgresServer
) -> None:
    here, there = cluster.callers
    workflow_id = await here.push(
        [
            code("a", "await util.sleep(1000); return 1", "b"),
            code("b", "return 2"),
        ]
    )
    path = f"workflows/{workflow_id}/runs"
    runs = [await caller.ok("POST", path, {"background": True}) for caller in (here, there)]
    await asyncio.to_thread(postgres_server.stop)
    refused = await here.ask("POST", path, {"background": True})
    assert refused.status == 503
    assert refused.headers["retry-after"]
    await asyncio.sleep(1.5)
    postgres_server.start()  # here: it dies with the thread that started it

    async def answers() -> None:
        while (await here.ask("GET", path)).status != 200:  # noqa: ASYNC110  # it comes back
            await asyncio.sleep(0.1)

    await asyncio.wait_for(answers(), 20)
    ended = [await there.final(path, run["id"]) for run in runs]
    assert [run["status"] for run in ended] == ["COMPLETED", "COMPLETED"]
