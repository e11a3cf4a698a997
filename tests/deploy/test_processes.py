"""The compose file's commands as plain processes: its environment, translated to the loopback, real
PostgreSQL, real NATS. What one node does, the others see.
"""

import json
import re
import secrets
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.harness import environment
from tests.acceptance.processes import wait_until
from tests.deploy.files import compose
from tests.nats import NatsServer, start_nats
from tests.postgres import PostgresServer

SERVICES = compose()["services"]
NODES = [name for name, one in SERVICES.items() if one["image"] == "insula"]
SECRETS = {
    "POSTGRES_PASSWORD": secrets.token_hex(8),
    "NATS_PASSWORD": secrets.token_hex(8),
    "INSULA_ADMIN_KEY": "insadm_" + secrets.token_hex(16),
    "INSULA_SECRET_KEYS": b64encode(secrets.token_bytes(32)).decode(),
}
STARTS = 40.0


def interpolated(text: str) -> str:
    """Put in what compose would take from ``.env``."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        return SECRETS.get(name) or (default or "").removeprefix(":-")

    return re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", value, text)


@dataclass
class Node:
    """A service of the compose file as a process."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    url: str = ""
    http: httpx.Client = field(default_factory=httpx.Client)

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text(errors="replace")

    def call(self, key: str, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.url}{path if path.startswith('/') else f'/apps/c/{path}'}"
        answer = self.http.request(method, url, json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, f"{self.name}: {answer.status_code} {answer.text}"
        return answer.json()

    def end(self) -> int:
        """Ask it to stop, within the file's own grace; return its exit code."""
        grace = float(SERVICES[self.name]["stop_grace_period"].rstrip("s"))
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(grace)
        finally:
            self.process.kill()
            self.process.wait()
            self.http.close()


def start(name: str, folder: Path, hosts: dict[str, str]) -> Node:
    """Start a service; its hosts are on the loopback, its data in a folder of its own."""
    service = SERVICES[name]
    data = folder / name
    data.mkdir(mode=0o700)
    (data / "files").symlink_to(folder / "files")  # the volume that all share
    settings = {key: interpolated(value) for key, value in service["environment"].items()}
    for host, local in hosts.items():
        settings = {key: value.replace(host, local) for key, value in settings.items()}
    verb, *words = service["command"]
    port = ["--port", "0"] if verb == "serve" else []
    with (data / "node.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "insula", verb, "--data", str(data), *port, *words],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Node(name, data, process)


def await_address(node: Node) -> None:
    told = node.folder / "server.json"
    wait_until(lambda: told.exists() or node.process.poll() is not None, STARTS, node.name)
    assert node.process.poll() is None, node.log
    node.url = json.loads(told.read_text())["address"]


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    words = [interpolated(word) for word in SERVICES["nats"]["command"]]
    store = words.index("--store_dir")
    own = [*words[:store], *words[store + 2 :]]  # the folder is the test's
    server = start_nats(*[word for word in own if word != "--jetstream"])
    yield server
    server.close()


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, database: str, nats: NatsServer
) -> Iterator[dict[str, Node]]:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "files").mkdir(mode=0o700)
    hosts = {
        "@postgres:5432/insula": f"@{database.partition('@')[2]}",
        "@nats:4222": f"@127.0.0.1:{nats.port}",
    }
    started: dict[str, Node] = {}
    try:
        for name in NODES:
            started[name] = start(name, folder, hosts)
        for node in started.values():
            if SERVICES[node.name]["command"][0] == "serve":
                await_address(node)
        yield started
    finally:
        codes = {node.name: node.end() for node in started.values()}
    assert set(codes.values()) == {0}, {node.name: node.log for node in started.values()}


@dataclass(frozen=True)
class Work:
    """An app with a deployed workflow."""

    key: str
    path: str


@pytest.fixture(scope="module")
def work(nodes: dict[str, Node]) -> Work:
    node = nodes["node-1"]
    admin = SECRETS["INSULA_ADMIN_KEY"]
    key = node.call(admin, "POST", "/apps", {"name": "Acme"})["key"]
    steps = [{"type": "code", "key": "one", "code": "return { result: input.n * 2 }"}]
    made = node.call(key, "POST", "workflows", {"name": "Double", "steps": steps})
    node.call(key, "POST", f"workflows/{made['id']}/versions", {})
    return Work(key, f"workflows/{made['id']}/runs")


def test_a_run_through_one_node_is_seen_on_the_other(nodes: dict[str, Node], work: Work) -> None:
    here, there = nodes["node-1"], nodes["node-2"]
    run = here.call(work.key, "POST", work.path, {"input": {"n": 21}})
    assert (run["status"], run["result"]) == ("COMPLETED", 42)
    assert there.call(work.key, "GET", f"{work.path}/{run['id']}")["result"] == 42
    back = there.call(work.key, "POST", work.path, {"input": {"n": 2}})
    assert here.call(work.key, "GET", f"{work.path}/{back['id']}")["result"] == 4


def test_a_background_run_is_followed_on_the_other_node(nodes: dict[str, Node], work: Work) -> None:
    here, there = nodes["node-1"], nodes["node-2"]
    run = here.call(work.key, "POST", work.path, {"input": {"n": 5}, "background": True})
    headers = {"authorization": f"Bearer {work.key}"}
    url = f"{there.url}/apps/c/{work.path}/{run['id']}/stream"
    text = there.http.get(url, headers=headers, timeout=60).text
    last = json.loads(text.strip().split("\n\n")[-1].partition("data: ")[2].splitlines()[0])
    assert (last["status"], last["result"]) == ("COMPLETED", 10)


def test_every_node_is_ready(nodes: dict[str, Node]) -> None:
    for node in nodes.values():
        if node.url:
            assert node.http.get(f"{node.url}/readyz").status_code == 200
            assert node.http.get(f"{node.url}/healthz").status_code == 200
        assert node.process.poll() is None, node.log


def test_every_service_is_a_node_of_one_database(
    nodes: dict[str, Node], database: str, postgres_server: PostgresServer
) -> None:
    def alive() -> int:
        found = postgres_server.execute(
            "SELECT count(*) FROM nodes"
            " WHERE expires_at > extract(epoch FROM clock_timestamp()) * 1000",
            database.rpartition("/")[2],
        )
        return int(str(found[0][0]))

    wait_until(lambda: alive() == len(NODES), STARTS, "the worker's lease")


def test_files_of_one_node_are_served_by_the_other(nodes: dict[str, Node], work: Work) -> None:
    here, there = nodes["node-1"], nodes["node-2"]
    given = {"type": "base64", "data": "aGVsbG8=", "name": "hello.txt"}
    made = here.call(work.key, "POST", "files", {"file": given})
    found = there.call(work.key, "GET", "files")
    assert [file["id"] for file in found] == [made["id"]]
    # Its URL is the public one, which the proxy sends to either node.
    path = made["file_url"].removeprefix("http://localhost:8080")
    assert there.http.get(f"{there.url}{path}").content == b"hello"


def test_the_database_takes_the_options_that_it_is_given(postgres_server: PostgresServer) -> None:
    words = SERVICES["postgres"]["command"]
    assert words[0] == "postgres"
    given = dict(word.split("=", 1) for word in words[1:] if word != "-c")
    known = {str(row[0]) for row in postgres_server.execute("SELECT name FROM pg_settings")}
    assert set(given) <= known
    # Seven connections a node at most, and some for people.
    assert int(given["max_connections"]) >= 7 * len(NODES) + 20


def test_no_secret_is_in_the_logs(nodes: dict[str, Node]) -> None:
    for node in nodes.values():
        assert not [name for name, value in SECRETS.items() if value in node.log]
