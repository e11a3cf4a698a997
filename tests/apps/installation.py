"""An installation with a database, the routes of apps, and clients with any key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from tests.databases import prepare

from insula.apps import actions
from insula.apps.authenticate import Authenticator
from insula.apps.endpoints import router
from insula.kit.clock import now_ms
from insula.settings import load_settings
from insula.storage.database import Database
from insula.storage.opening import open_database
from insula.web.openapi import create_application

ADMIN_KEY = "the-admin-key-of-this-installation"


@dataclass
class Clock:
    """A clock that is moved by hand."""

    now: int = field(default_factory=now_ms)

    def __call__(self) -> int:
        return self.now


@dataclass
class Installation:
    database: Database
    authenticator: Authenticator
    clock: Clock
    app: FastAPI
    deleted: list[str]
    http: httpx.AsyncClient

    async def create(self, name: str = "Acme") -> tuple[str, str]:
        """Make an app; return its id and its key."""
        row, key, _ = await actions.create_app(self.database, name)
        assert key is not None
        return row.id, key

    async def call(
        self, method: str, path: str, key: str | None = ADMIN_KEY, **given: Any
    ) -> httpx.Response:
        headers = {**given.pop("headers", {})}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        return await self.http.request(method, path, headers=headers, **given)


@asynccontextmanager
async def installed(folder: Path, database_url: str | None = None) -> AsyncIterator[Installation]:
    if database_url is None:
        prepare(folder)
    database = await open_database(database_url, folder, "NORMAL")
    clock, deleted = Clock(), []

    async def first(app_id: str) -> None:
        deleted.append(f"first {app_id}")

    async def second(app_id: str) -> None:
        deleted.append(f"second {app_id}")

    authenticator = Authenticator(database, clock)
    routes = router(database, authenticator, [first, second])
    settings = load_settings(admin_key=ADMIN_KEY)
    app = create_application([routes], authenticator, {}, settings)
    transport = httpx.ASGITransport(app=app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://insula") as http:
            yield Installation(database, authenticator, clock, app, deleted, http)
    finally:
        await database.close()
