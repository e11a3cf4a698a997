"""The product as its users meet it: a server process of its own, and clients that speak HTTP."""

import asyncio
import io
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.acceptance.processes import wait_until
from tests.acceptance.starts import Started, start
from tests.contract import ContractFile, validate

START = 90.0
WAIT = 30.0
_FOREIGN = ("INSULA_", "OPENAI_", "GROQ_", "XAI_", "OPENROUTER_")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without the product's settings, and with these."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(_FOREIGN)}
    return {**kept, "PYTHONUNBUFFERED": "1", **(more or {})}


def shaped(instance: object, name: str) -> None:
    """Check against the contract's schema, where the contract is at hand.

    Without it the rest of the test still tells something: the run's summary says what was left out.
    """
    if ContractFile.present:
        validate(instance, name)


class Served:
    """``insula serve`` as a process in a session of its own.

    What it says goes to ``log``, which is in its folder unless named; the folder is made here only
    for that.
    """

    def __init__(self, data: Path, settings: Mapping[str, str], log: Path | None = None) -> None:
        self.data = data
        self.log_file = log or data / "server.log"
        self.settings = {"INSULA_EGRESS_ALLOW": "127.0.0.1", **settings}
        self.url = ""
        self.process: Started | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def admin_key(self) -> str:
        return (self.data / "admin.key").read_text().strip()

    def start(self) -> "Served":
        """Start it and wait until it listens."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        announced = self.data / "server.json"
        announced.unlink(missing_ok=True)
        command = ["serve", "--data", str(self.data), "--port", "0"]
        self.process = start(command, environment(self.settings), self.log_file)
        process = self.process
        wait_until(lambda: announced.exists() or process.poll() is not None, START, "the start")
        assert process.poll() is None, self.log
        self.url = f"http://127.0.0.1:{_port(json.loads(announced.read_text()))}"
        return self

    def kill(self) -> None:
        """``kill -9`` of the one process that was started, and of nothing else."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(WAIT)

    def stop(self) -> int:
        """Ask it to stop, wait until it has, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def _port(server: dict[str, Any]) -> int:
    address = next(v for v in server.values() if isinstance(v, str) and "://" in v)
    return int(address.rstrip("/").rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and when it had come, on CLOCK_MONOTONIC."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    id: int | None
    name: str
    data: Any


@dataclass(slots=True)
class Stream:
    """A stream of events that is read as it comes."""

    events: list[Event] = field(default_factory=list)
    status: int = 0
    failure: BaseException | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Read to the end of the body."""
        try:
            fields: dict[str, str] = {}
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif not line and fields:
                    number = int(fields["id"]) if "id" in fields else None
                    self.events.append(Event(number, fields["event"], json.loads(fields["data"])))
                    fields = {}
                    self._changed.set()
        except aiohttp.ClientError as error:
            self.failure = error
        finally:
            self._over = True
            self._changed.set()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition on the events holds."""
        try:
            async with asyncio.timeout(WAIT):
                while not condition():
                    assert not self._over, f"the stream ended before {what}: {self.events[-1:]}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}: {self.events[-2:]}") from None

    async def run_id(self) -> str:
        """Return the run's id, which the first event tells."""
        await self.until(lambda: bool(self.events), "the first event")
        run_id: str = self.events[0].data["id"]
        return run_id

    async def running(self, key: str) -> None:
        """Wait until a step is told to be RUNNING."""
        await self.until(
            lambda: any(e.name == "step" and e.data["key"] == key for e in self.events),
            f"step {key}",
        )

    async def chunks(self, key: str, count: int) -> None:
        """Wait for so many pieces of a model's answer."""
        await self.until(
            lambda: sum(e.name == "chunk" and e.data["key"] == key for e in self.events) >= count,
            f"{count} chunks of {key}",
        )

    async def to_the_end(self) -> list[Event]:
        """Wait for the end of the body; return all events."""
        async with asyncio.timeout(WAIT):
            while not self._over:
                self._changed.clear()
                await self._changed.wait()
        return self.events


class Caller:
    """One app with its key, over HTTP."""

    def __init__(
        self, session: aiohttp.ClientSession, served: Served, app_id: str, key: str
    ) -> None:
        self.session = session
        self.served = served
        self.app_id = app_id
        self.key = key

    def _url(self, path: str) -> str:
        return self.served.url + (path if path.startswith("/") else f"/apps/c/{path}")

    async def ask(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **more: Any
    ) -> Answer:
        """Send a request, below the own app unless the path begins with a slash."""
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            headers.setdefault("content-type", "application/json")
        data = None if raw is None else io.BytesIO(raw)
        async with self.session.request(
            method, self._url(path), data=data, headers=headers, **more
        ) as response:
            answer = await response.read()
            return Answer(response.status, response.headers.copy(), answer, time.monotonic())

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send a request that must succeed; return what is answered."""
        answer = await self.ask(method, path, body, **more)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body[:500]!r}"
        return answer.json()

    @asynccontextmanager
    async def stream(
        self, path: str, body: Any = None, method: str = "POST", **more: Any
    ) -> AsyncIterator[Stream]:
        """Read a stream while the block runs."""
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        stream = Stream()
        async with self.session.request(
            method, self._url(path), json=body, headers=headers, **more
        ) as response:
            stream.status = response.status
            assert response.status == 200, await response.text()
            reading = asyncio.create_task(stream.read(response))
            try:
                yield stream
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def push(self, steps: list[dict[str, Any]], **fields: Any) -> str:
        """Make and deploy a workflow; return its id."""
        body = {"name": "Acceptance", "steps": steps, **fields}
        made = await self.ok("POST", "workflows", body)
        workflow_id: str = made["id"]
        await self.ok("POST", f"workflows/{workflow_id}/versions", {})
        return workflow_id

    async def publish(self, workflow_id: str, *, is_open: bool = True) -> None:
        """Let every app run a workflow."""
        await self.ok("PATCH", f"workflows/{workflow_id}", {"discoverable": True, "open": is_open})

    async def final(self, path: str, run_id: str) -> dict[str, Any]:
        """Follow a run to its end and return it as it is stored."""
        async with self.stream(f"{path}/{run_id}/stream", method="GET") as stream:
            await stream.to_the_end()
        run: dict[str, Any] = await self.ok("GET", f"{path}/{run_id}")
        return run


class Clients:
    """Makes callers of a server, over one pool of connections."""

    def __init__(self, session: aiohttp.ClientSession, served: Served) -> None:
        self.session = session
        self.served = served

    async def app(self, name: str) -> Caller:
        """Make an app."""
        admin = Caller(self.session, self.served, "", self.served.admin_key)
        made = await admin.ok("POST", "/apps", {"name": name})
        return Caller(self.session, self.served, made["id"], made["key"])


@asynccontextmanager
async def clients(served: Served) -> AsyncIterator[Clients]:
    """Open a pool of connections to a server."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, read_bufsize=2**22, max_line_size=2**18
    ) as session:
        yield Clients(session, served)
