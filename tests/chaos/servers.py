"""What a cluster stands on, as things that can be broken: a database, a broker, and the ways of
each node to them.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

from tests.chaos.schedule import Way
from tests.nats import NatsServer
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxied


class Database:
    """A PostgreSQL server, which goes away in order or without a word."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    async def stop(self, way: Way) -> None:
        """``fast`` ends every session first, ``immediate`` nothing: the next start recovers."""
        how = signal.SIGQUIT if way == "immediate" else signal.SIGINT
        await asyncio.to_thread(self._server.stop, how)

    async def start(self) -> None:
        """Bring it back, at the same port."""
        await asyncio.to_thread(self._server.start)


class Broker:
    """A NATS server, killed each time."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server

    async def stop(self, way: Way) -> None:
        """End it as a crash does."""
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        """Bring it back, at the same port."""
        await asyncio.to_thread(self._server.start)


class Path:
    """One node's way to a server, through a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._refused = False

    def through(self, url: str) -> str:
        """Return the server's URL by this way."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self._proxy.port}"))

    async def part(self, way: Way) -> None:
        """Hold up, break off, or break off and take nothing new."""
        if way == "stall":
            self._proxy.stall()
        elif way == "cut":
            self._proxy.cut()
        else:
            self._refused = True
            await self._proxy.refuse()

    async def heal(self) -> None:
        """Let everything through again."""
        self._proxy.go_on()
        if self._refused:
            self._refused = False
            await self._proxy.listen()


@asynccontextmanager
async def paths(count: int, port: int) -> AsyncIterator[list[Path]]:
    """Ways of so many nodes to a port of the loopback, until the block is left."""
    if not count:
        yield []
        return
    async with proxied(port) as proxy, paths(count - 1, port) as more:
        yield [Path(proxy), *more]
