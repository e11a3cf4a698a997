"""A small installation for tests: real database, real HTTP layer, three apps with a key each."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import Connection, insert
from tests.databases import prepare

from insula.catalogue import endpoints as catalogue
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import encode
from insula.settings import Settings
from insula.storage import tables
from insula.storage.database import Database
from insula.storage.opening import open_database
from insula.web.auth import Principal
from insula.web.openapi import create_application
from insula.workflows import endpoints as workflows
from insula.workflows.resolve import Resolver

APPS = ("Acme", "Globex", "Initech")
T = TypeVar("T")
CODE = {"type": "code", "key": "sum", "code": "return 1 + 1"}


class App:
    """One app's view of the installation."""

    def __init__(self, platform: "Platform", name: str) -> None:
        self.id = new_id("app")
        self.name = name
        self.key_id = new_id("key")
        self.principal = Principal(self.id, self.key_id)
        self.key = f"key-of-{name}"
        self.platform = platform

    async def ask(self, method: str, path: str, body: object = None, **more: Any) -> httpx.Response:
        """Send a request below ``/apps/c``, or to ``path`` as it is if it starts with ``/apps``."""
        headers = {"authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        if body is not None:
            more["content"] = encode(body)
            headers.setdefault("content-type", "application/json")
        url = path if path.startswith("/apps") else f"/apps/c{path}"
        return await self.platform.client.request(method, url, headers=headers, **more)

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.ask("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def make(self, **fields: Any) -> dict[str, Any]:
        """Create a workflow with one code step unless told otherwise."""
        body = {"name": "Sum", "steps": [CODE], **fields}
        return self._ok(await self.ask("POST", "/workflows", body))

    async def patch(self, workflow_id: str, **fields: Any) -> dict[str, Any]:
        return self._ok(await self.ask("PATCH", f"/workflows/{workflow_id}", fields))

    async def deploy(self, workflow_id: str, **fields: Any) -> dict[str, Any]:
        return self._ok(await self.ask("POST", f"/workflows/{workflow_id}/versions", fields))

    async def publish(self, **fields: Any) -> dict[str, Any]:
        """Create, deploy and publish a workflow; answers it as its owner sees it."""
        made = await self.make(**fields)
        await self.deploy(made["id"])
        return await self.patch(made["id"], discoverable=True)

    def _ok(self, answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == 200, answer.text
        value: dict[str, Any] = answer.json()
        return value


class Shared:
    """The application, built once for all tests because that takes a tenth of a second.

    It stands before whatever installation is open; ids never repeat, so that nothing that the
    resolver keeps of one installation is found in another.
    """

    def __init__(self) -> None:
        self.current: Platform
        self.resolver = Resolver(self)
        own = workflows.router(self, self.resolver, [self.before_delete])
        # In the order that would be wrong if the paths did not guard themselves.
        self.application = create_application(
            [own, catalogue.router(self)], self.authenticate, {}, Settings(data_dir=Path("unused"))
        )

    async def authenticate(self, key: str) -> Principal | None:
        return next((app.principal for app in self.current.apps if app.key == key), None)

    async def before_delete(self, app_id: str, workflow_id: str) -> None:
        self.current.deleted.append((app_id, workflow_id))

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self.current.database.read(query)

    async def write(self, unit: Callable[[Connection], T]) -> T:
        return await self.current.database.write(unit)

    async def close(self) -> None:
        await self.current.database.close()


@cache
def shared() -> Shared:
    return Shared()


class Platform:
    """The installation: a database, a resolver, a client, and the apps."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.resolver = shared().resolver
        self.deleted: list[tuple[str, str]] = []
        self.acme, self.globex, self.initech = (App(self, name) for name in APPS)
        self.apps = (self.acme, self.globex, self.initech)
        self.client: httpx.AsyncClient

    def store_apps(self, connection: Connection) -> None:
        for app in self.apps:
            connection.execute(
                insert(tables.apps).values(
                    id=app.id, name=app.name, created_at=now_ms(), updated_at=now_ms()
                )
            )
            connection.execute(
                insert(tables.keys).values(
                    id=app.key_id,
                    app_id=app.id,
                    name=f"{app.name}'s key",
                    hash=hashlib.sha256(app.key.encode()).digest(),
                    created_at=now_ms(),
                )
            )


@asynccontextmanager
async def open_platform(folder: Path, database_url: str | None = None) -> AsyncIterator[Platform]:
    """Open an installation in a folder, and close everything afterwards."""
    if database_url is None:
        prepare(folder)
    database = await open_database(database_url, folder, "NORMAL")
    try:
        platform = Platform(database)
        await database.write(platform.store_apps)
        shared().current = platform
        transport = httpx.ASGITransport(shared().application)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            platform.client = client
            yield platform
        await platform.resolver.close()
    finally:
        await database.close()
