"""Files on a real database and a real disk, behind the real web layer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.databases import prepare
from tests.listening import listening

from insula.adapters.blobs.disk import DiskBlobs
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.apps.repository import insert_app
from insula.files import endpoints
from insula.files.resolve import FileInputs
from insula.files.store import FileStore
from insula.settings import load_settings
from insula.storage.database import Database
from insula.storage.opening import FILE
from insula.storage.postgres import open_postgres
from insula.storage.sqlite import open_sqlite
from insula.web.auth import Principal
from insula.web.openapi import create_application

KEYS = {
    "mine": Principal("app_1", "key_1"),
    "reads": Principal("app_1", "key_2", read_only=True),
    "theirs": Principal("app_2", "key_3"),
}
LIMIT = 300_000


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        prepare(tmp_path)
        opened: Database = await open_sqlite(tmp_path / FILE, "NORMAL")
    else:
        opened = await open_postgres(request.getfixturevalue("tables_url"))
    for app_id in ("app_1", "app_2"):
        await opened.write(partial(insert_app, app_id=app_id, name=app_id))
    yield opened
    await opened.close()


@pytest.fixture
async def files(tmp_path: Path, database: Database) -> AsyncIterator[FileInputs]:
    http = HttpClient(EgressPolicy(["127.0.0.1"]))
    settings = load_settings(public_url="http://insula", file_max=LIMIT, extract_pages=50)
    opened = await FileInputs.open(
        database, DiskBlobs(tmp_path / "files"), http, settings, lambda: "node_1"
    )
    yield opened
    await opened.documents.extractor.close()
    await http.close()


@pytest.fixture
async def reading(files: FileInputs) -> AsyncIterator[None]:
    """Documents are read in the background."""
    task = asyncio.create_task(files.documents.run())
    yield
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture
def store(files: FileInputs) -> FileStore:
    return files.store


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[], set[str]]:
    """Names of all the files whose bytes are there."""
    return lambda: {path.name for path in (tmp_path / "files").rglob("*") if path.is_file()}


@pytest.fixture
async def client(files: FileInputs) -> AsyncIterator[httpx.AsyncClient]:
    async def authenticate(key: str) -> Principal | None:
        return KEYS.get(key)

    settings = load_settings(public_url="http://insula", file_max=LIMIT)
    app = create_application([endpoints.router(files)], authenticate, {}, settings)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://insula",
        headers={"authorization": "Bearer mine"},
    ) as opened:
        yield opened


@dataclass
class Origin:
    """A server whose one file is downloaded."""

    port: int = 0
    answer: bytes = b""
    requests: list[bytes] = field(default_factory=list)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def gives(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
        self.answer = "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        writer.close()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    served = Origin()
    async with listening(served.serve) as served.port:
        yield served
