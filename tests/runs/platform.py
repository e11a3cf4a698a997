"""The whole product in this process, with a sandbox and an HTTP client that tests control."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import Connection, text
from tests.databases import prepare
from tests.runs.fakes import FakeHttp, FakeSandbox, Gate

from insula import app as composition
from insula.app import Insula, open_insula
from insula.kit.json import decode, encode
from insula.runs.services import RunServices
from insula.settings import load_settings

T = TypeVar("T")
ADMIN = "insadm_" + "x" * 40
Steps = Iterable[dict[str, Any]]


def code(key: str, script: str, *to: str, **more: Any) -> dict[str, Any]:
    """Make a code step that leads to others."""
    return {"type": "code", "key": key, "code": script, "destinations": list(to), **more}


def model(key: str, replies: list[dict[str, Any]], *to: str, **more: Any) -> dict[str, Any]:
    """Make a model step that is scripted."""
    own = {"provider": "mock", "model": "m", "messages": "Hello", "mock": {"replies": replies}}
    provider = {**own, **more.pop("provider", {})}
    return {"type": "model", "key": key, "provider": provider, "destinations": list(to), **more}


def child(key: str, workflow_id: str, *to: str, **more: Any) -> dict[str, Any]:
    """Make a workflow step."""
    step = {"type": "workflow", "key": key, "workflow_id": workflow_id, "destinations": list(to)}
    return {**step, **more}


@dataclass(frozen=True)
class Told:
    """One server-sent event."""

    id: int
    event: str
    data: Any
    text: str


def parse(body: str) -> list[Told]:
    """Read server-sent events; comments are passed over."""
    told = []
    for block in body.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":")
        )
        if fields:
            number, data = int(fields.get("id", -1)), fields["data"]
            told.append(Told(number, fields["event"], decode(data), block))
    return told


class Caller:
    """One app and its client."""

    def __init__(self, app_id: str, key: str, client: httpx.AsyncClient) -> None:
        self.id = app_id
        self.key = key
        self.client = client

    async def ask(self, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        if body is not None:
            more["content"] = encode(body)
            headers.setdefault("content-type", "application/json")
        return await self.client.request(method, f"/apps/c{path}", headers=headers, **more)

    async def ok(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        answer = await self.ask(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def make(self, *steps: dict[str, Any], **fields: Any) -> str:
        """Create and deploy a workflow; return its id."""
        made = await self.ok("POST", "/workflows", {"name": "W", "steps": list(steps), **fields})
        await self.ok("POST", f"/workflows/{made['id']}/versions", {})
        return str(made["id"])

    async def publish(self, *steps: dict[str, Any], **fields: Any) -> str:
        """Create, deploy and publish a workflow; ``open`` and ``caller_limit`` may be given."""
        shown = {name: fields.pop(name) for name in ("open", "caller_limit") if name in fields}
        workflow_id = await self.make(*steps, **fields)
        await self.ok("PATCH", f"/workflows/{workflow_id}", {"discoverable": True, **shown})
        return workflow_id

    async def run(self, workflow_id: str, **body: Any) -> Any:
        """Run a workflow of one's own."""
        return await self.ok("POST", f"/workflows/{workflow_id}/runs", body)

    async def discover(self, workflow_id: str, **body: Any) -> Any:
        """Run another app's workflow."""
        return await self.ok("POST", f"/workflows/discover/{workflow_id}/runs", body)

    async def stream(self, path: str, body: object = None, **more: Any) -> list[Told]:
        """Read a stream to its end."""
        method = "GET" if body is None else "POST"
        answer = await self.ask(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return parse(answer.text)


class Platform:
    """An installation that is open."""

    def __init__(self, insula: Insula, client: httpx.AsyncClient, http: FakeHttp) -> None:
        assert isinstance(insula.sandbox, FakeSandbox)
        self.insula = insula
        self.services: RunServices = insula.services
        self.sweeper = insula.sweeper
        self.sandbox: FakeSandbox = insula.sandbox
        self.http = http
        self.client = client
        self.acme: Caller
        self.globex: Caller

    async def caller(self, name: str) -> Caller:
        return Caller(*await self.insula.create_app(name), self.client)

    def gate(self, name: str) -> Gate:
        return self.sandbox.gates[name]

    async def reached(self, name: str) -> None:
        """Wait until a script waits at a gate."""
        async with asyncio.timeout(30):
            await self.sandbox.gates[name].reached.wait()

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self.services.database.read(query)

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        return list(await self.read(lambda c: c.execute(text(sql), values).all()))

    async def change(self, sql: str, **values: Any) -> None:
        await self.services.database.write(lambda c: c.execute(text(sql), values).rowcount)

    async def idle(self) -> None:
        """Wait until nothing is live."""
        async with asyncio.timeout(30):
            while live := list(self.services.live):
                await asyncio.wait([one.finished for one in live])


@asynccontextmanager
async def open_platform(
    folder: Path, callers: tuple[Caller, ...] = (), *, only_asked: bool = False, **given: Any
) -> AsyncIterator[Platform]:
    """Open an installation; with ``callers`` of an earlier one in the same folder, for them.

    ``only_asked``: as commands do where no server holds the folder.
    """
    pool, composition.SandboxPool = composition.SandboxPool, FakeSandbox  # type: ignore[assignment,misc]  # a fake
    try:
        settings = load_settings(data_dir=folder, admin_key=ADMIN, synchronous="NORMAL", **given)
        if settings.database_url is None:
            prepare(folder)
        async with open_insula(settings, only_asked=only_asked) as insula:
            http = insula.services.http = FakeHttp()
            transport = httpx.ASGITransport(insula.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                platform = Platform(insula, client, http)
                if callers:
                    acme, globex = callers
                    platform.acme = Caller(acme.id, acme.key, client)
                    platform.globex = Caller(globex.id, globex.key, client)
                else:
                    platform.acme = await platform.caller("Acme")
                    platform.globex = await platform.caller("Globex")
                yield platform
    finally:
        composition.SandboxPool = pool  # type: ignore[misc]  # as it was
