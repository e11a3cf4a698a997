"""What nodes do while something is away: one of them, the broker, the way to the database, the
database, the disk. Real processes all of them.
"""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import Caller, Served, clients, environment
from tests.acceptance.loopback import Loopback, url_of
from tests.chaos.servers import Path as Way
from tests.nats import NatsServer, start_nats
from tests.postgres import PostgresServer, postgres_server
from tests.proxy import proxied

__all__ = ["postgres_server"]

ADMIN = "insadm_" + "f" * 40
TAKEN_WITHIN = 20.0
"""Seconds after which somebody must have gone on with a dead node's runs, on shared cores."""


def request(key: str, url: str, *to: str) -> dict[str, Any]:
    step = {"type": "http_request", "key": key, "method": "POST", "url": url}
    return {**step, "destinations": list(to)}


def code(key: str, text: str, *to: str) -> dict[str, Any]:
    return {"type": "code", "key": key, "code": text, "destinations": list(to)}


async def until(holds: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Ask again and again."""
    try:
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None


async def metric(caller: Caller, name: str) -> float:
    answer = await caller.ask("GET", "/metrics")
    lines = answer.body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@asynccontextmanager
async def app_at(*servers: Served) -> AsyncIterator[list[Caller]]:
    """Make one app and return its callers, one a server."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(clients(server)) for server in servers]
        admin = Caller(opened[0].session, servers[0], "", ADMIN)
        made = await admin.ok("POST", "/apps", {"name": "Acme"})
        yield [Caller(each.session, each.served, made["id"], made["key"]) for each in opened]


@pytest.fixture(scope="module")
def broker() -> Iterator[NatsServer]:
    server = start_nats()
    yield server
    server.close()


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, database: str, broker: NatsServer
) -> Iterator[list[Served]]:
    settings = {
        "INSULA_DATABASE_URL": database,
        "INSULA_CLUSTER_URL": broker.url,
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
                server.process.send_signal(signal.SIGCONT)
                server.stop()


@pytest.fixture
async def callers(pair: list[Served]) -> AsyncIterator[list[Caller]]:
    async with app_at(*pair) as made:
        yield made


async def hanging(caller: Caller, url: str) -> str:
    return await caller.push(
        [
            request("busy", f"{url}/hang/{{{{input.tag}}}}", "late"),
            request("late", f"{url}/late/{{{{input.tag}}}}"),
        ]
    )


async def begin_hanging(caller: Caller, loopback: Loopback, path: str, tag: str) -> str:
    made = await caller.ok("POST", path, {"background": True, "input": {"tag": tag}})
    await loopback.arrived(tag)
    run_id: str = made["id"]
    return run_id


async def cancelled(caller: Caller, path: str) -> None:
    """Wait for the end that was asked for; nobody asks again."""

    async def ended() -> bool:
        return bool((await caller.ok("GET", path))["status"] == "CANCELLED")

    await until(ended, TAKEN_WITHIN, "the cancel")


def start_worker(folder: Path, settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start ``insula worker``; what it says goes to ``worker.log``."""
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "insula", "worker", "--data", str(folder / "worker")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(settings),
            start_new_session=True,
        )


def check(folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """Check the database of a folder."""
    return subprocess.run(
        [sys.executable, "-m", "insula", "db", "check", "--data", str(folder)],
        capture_output=True,
        env=environment(),
        check=False,
        timeout=60,
    )


async def test_a_node_that_was_paused_beyond_its_lease_does_nothing_more_of_its_runs(
    callers: list[Caller], pair: list[Served], loopback: Loopback, reserved: socket.socket
) -> None:
    here, there = callers
    url = url_of(reserved)
    workflow_id = await here.push(
        [
            request("first", f"{url}/answer/first", "wait"),
            code("wait", "await util.sleep(1500); return 1", "last"),
            request("last", f"{url}/answer/last"),
        ]
    )
    path = f"workflows/{workflow_id}/runs"
    stuck = f"workflows/{await hanging(here, url)}/runs"
    asked = await begin_hanging(here, loopback, stuck, "paused")
    runs = [(await here.ok("POST", path, {"background": True}))["id"] for _ in range(3)]
    await loopback.arrived("first", len(runs))
    await asyncio.sleep(0.5)  # the results of the first step are stored
    os.kill(pair[0].pid, signal.SIGSTOP)
    try:
        # Its owner stands still: the cancel is kept, whatever is answered, and never forgotten.
        answer = await there.ask("POST", f"{stuck}/{asked}/cancel")
        assert answer.status in (200, 503), answer.body
        if answer.status == 503:
            assert answer.headers["retry-after"]
        ended = await asyncio.wait_for(
            asyncio.gather(*(there.final(path, run_id) for run_id in runs)), TAKEN_WITHIN
        )
        assert [run["status"] for run in ended] == ["COMPLETED"] * len(runs)
        await cancelled(there, f"{stuck}/{asked}")
        before = await loopback.barrier()
    finally:
        os.kill(pair[0].pid, signal.SIGCONT)

    async def dropped() -> bool:
        return await metric(here, "insula_runs_fenced_total") >= len(runs) + 1

    await until(dropped, 10, "its runs' being dropped")
    assert await metric(here, "insula_lease_lost_total") == 1
    for word in ("lease.lost", "lease.taken_again", "runs.fenced"):
        assert word in pair[0].log
    await loopback.left("paused")
    again = await here.ok("POST", path, {})
    assert again["status"] == "COMPLETED"  # it goes on serving
    # Of what the other has finished nothing was asked or written a second time.
    new = [arrival.path for arrival in loopback.arrivals[before:]]
    assert sorted(new) == ["/answer/first", "/answer/last"]
    assert not [arrival for arrival in loopback.arrivals if "/late/" in arrival.path]
    assert [await there.ok("GET", f"{path}/{run['id']}") for run in ended] == ended


async def test_a_cancel_that_is_asked_while_the_owner_dies_is_not_forgotten(
    callers: list[Caller], pair: list[Served], loopback: Loopback, reserved: socket.socket
) -> None:
    here, there = callers
    path = f"workflows/{await hanging(here, url_of(reserved))}/runs"
    run_ids = [await begin_hanging(here, loopback, path, f"dying{number}") for number in range(3)]
    asking = [
        asyncio.create_task(there.ask("POST", f"{path}/{run_id}/cancel")) for run_id in run_ids
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(pair[0].kill)
    for answer in await asyncio.gather(*asking):
        assert answer.status in (200, 503), answer.body
    try:
        for run_id in run_ids:
            await cancelled(there, f"{path}/{run_id}")
    finally:
        await asyncio.to_thread(pair[0].start)
    await loopback.barrier()
    assert not [arrival for arrival in loopback.arrivals if "/late/" in arrival.path]


async def test_without_the_broker_everything_goes_on_a_little_later(
    callers: list[Caller], broker: NatsServer, loopback: Loopback, reserved: socket.socket
) -> None:
    here, there = callers
    path = f"workflows/{await hanging(here, url_of(reserved))}/runs"
    light = f"workflows/{await here.push([code('a', 'return 1')])}/runs"
    run_id = await begin_hanging(here, loopback, path, "away")

    async def says(word: bool) -> bool:
        answers = [await caller.ask("GET", "/readyz") for caller in callers]
        assert all(answer.status == 200 for answer in answers), answers
        return all((b"degraded" in answer.body) is word for answer in answers)

    await asyncio.to_thread(broker.kill)
    try:
        await until(lambda: says(True), 10, "degraded")
        # With the renewal of the lease, each 2 s: after 5 s it would be a 503.
        answer = await there.ask("POST", f"{path}/{run_id}/cancel")
        assert answer.status == 200, answer.body
        await loopback.left("away")
        waiting = await there.ok("POST", light, {"background": True})
        assert (await here.final(light, waiting["id"]))["status"] == "COMPLETED"
    finally:
        broker.start()  # here: it dies with the thread that started it
    await until(lambda: says(False), 15, "the broker's being back")
    run_id = await begin_hanging(here, loopback, path, "back")
    answer = await there.ask("POST", f"{path}/{run_id}/cancel")
    assert answer.status == 200, answer.body


async def test_a_worker_takes_what_waits_and_what_a_dead_server_leaves(
    tmp_path: Path, postgres_server: PostgresServer, broker: NatsServer
) -> None:
    url = postgres_server.create()
    settings = {
        "INSULA_DATABASE_URL": url,
        "INSULA_CLUSTER_URL": broker.url,
        "INSULA_ADMIN_KEY": ADMIN,
        "INSULA_SANDBOX_WARM": "1",
        "INSULA_DRAIN_SECONDS": "0",
    }
    server = Served(tmp_path / "server", {**settings, "INSULA_RUNS_MAX": "1"}).start()
    worker = start_worker(tmp_path, settings)
    name = url.rpartition("/")[2]

    async def works() -> bool:
        return b"Working" in (tmp_path / "worker.log").read_bytes()

    def ended() -> list[Any]:
        query = "SELECT status FROM runs WHERE ended_at IS NOT NULL"
        return [status for (status,) in postgres_server.execute(query, name)]

    try:
        await until(works, 30, "the worker's start")
        async with app_at(server) as (caller,):
            steps = [code("a", "await util.sleep(1000); return 1", "b"), code("b", "return 2")]
            path = f"workflows/{await caller.push(steps)}/runs"
            for _ in range(5):  # one has room at the server; the others need somebody else
                await caller.ok("POST", path, {"background": True})
            query = "SELECT count(DISTINCT owner) FROM runs WHERE owner IS NOT NULL"

            async def both() -> bool:
                return postgres_server.execute(query, name) == [(2,)]

            await until(both, TAKEN_WITHIN, "the worker's taking part")
            await asyncio.to_thread(server.kill)

        async def all_over() -> bool:
            return ended() == ["COMPLETED"] * 5

        await until(all_over, TAKEN_WITHIN, "the end of all runs")
    finally:
        for process in (worker, server.process):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(process.wait, 20)
        postgres_server.drop(url)
    assert worker.returncode == 0, (tmp_path / "worker.log").read_text()[-2000:]


async def test_the_way_to_the_database_stalls_and_then_is_gone_for_too_long(
    tmp_path: Path,
    postgres_server: PostgresServer,
    loopback: Loopback,
    reserved: socket.socket,
) -> None:
    url = postgres_server.create()
    async with proxied(postgres_server.port) as proxy:
        settings = {
            "INSULA_DATABASE_URL": Way(proxy).through(url),
            "INSULA_ADMIN_KEY": ADMIN,
            "INSULA_STORAGE_PATIENCE": "4",
            "INSULA_SANDBOX_WARM": "1",
        }
        server = Served(tmp_path / "node", settings)
        await asyncio.to_thread(server.start)
        try:
            async with app_at(server) as (caller,):
                # The second one has an effect: it does not begin while nothing can be stored.
                steps = [
                    code("a", "await util.sleep(700); return 1", "b"),
                    request("b", f"{url_of(reserved)}/answer/{{{{input.tag}}}}"),
                ]
                path = f"workflows/{await caller.push(steps)}/runs"
                body: dict[str, Any] = {"background": True, "input": {"tag": "more"}}

                async def refuses() -> bool:
                    answer = await caller.ask("POST", path, body)
                    if answer.status == 503:
                        assert answer.headers["retry-after"]
                    return answer.status == 503

                async def takes() -> bool:
                    return (await caller.ask("POST", path, body)).status == 200

                paused = await caller.ok("POST", path, {**body, "input": {"tag": "paused"}})
                proxy.stall()
                await until(refuses, 5, "a refusal")
                proxy.go_on()
                assert (await caller.final(path, paused["id"]))["status"] == "COMPLETED"
                await until(takes, 10, "runs' being taken again")

                lost = await caller.ok("POST", path, {**body, "input": {"tag": "lost"}})
                await proxy.refuse()
                await until(refuses, 5, "a refusal")

                async def gave_up() -> bool:
                    return await metric(caller, "insula_runs_given_up_total") >= 1

                await until(gave_up, 15, "its giving up")
                await proxy.listen()
                await until(takes, 15, "runs' being taken again")
                ended = await caller.final(path, lost["id"])
                assert ended["status"] == "FAILED"
                assert "INSULA_STORAGE_PATIENCE" in str(ended["error"])
                assert "run.given_up" in server.log
                assert len(loopback.of("paused")) == 1
                assert not loopback.of("lost")
        finally:
            proxy.go_on()
            await asyncio.to_thread(server.stop)
    postgres_server.drop(url)


async def test_a_full_disk_refuses_and_pauses_runs_and_harms_nothing(tmp_path: Path) -> None:
    server = Served(tmp_path / "data", {"INSULA_ADMIN_KEY": ADMIN, "INSULA_SANDBOX_WARM": "1"})
    await asyncio.to_thread(server.start)
    try:
        async with app_at(server) as (caller,):
            steps = [code("a", "await util.sleep(1500); return 1", "b"), code("b", "return 2")]
            path = f"workflows/{await caller.push(steps)}/runs"
            live = await caller.ok("POST", path, {"background": True})
            _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
            # No file may become longer, which is what a full disk comes to.
            longest = max(file.stat().st_size for file in (tmp_path / "data").glob("insula.db*"))
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (longest, hard))
            accepted = []
            filling = {"background": True, "input": {"text": "x" * 100_000}}
            try:
                async with asyncio.timeout(10):
                    while (answer := await caller.ask("POST", path, filling)).status == 200:
                        accepted.append(answer.json()["id"])
                assert answer.status == 503, answer.body
                assert answer.headers["retry-after"]
                await asyncio.sleep(2)  # what the live runs come to now cannot be stored
            finally:
                resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
            for run_id in (live["id"], *accepted):
                ended = await asyncio.wait_for(caller.final(path, run_id), 20)
                assert ended["status"] == "COMPLETED", ended
            assert (await caller.ok("POST", path, {}))["status"] == "COMPLETED"
    finally:
        await asyncio.to_thread(server.stop)
    checked = await asyncio.to_thread(check, tmp_path / "data")
    assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()
