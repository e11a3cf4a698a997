"""The world outside, as the demo's workflows see it: an HTTP server on the loopback.

It is the desk of a shop: customers, their tickets, an archive, a warehouse. One customer has far
too many tickets and an archive that never answers, until the desk tidies up.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from insula.kit.json import encode

PAGE = 20
_HEAD_DEADLINE = 10.0
_PAUSE = 0.015
_WORDS = ["shop", "parcel", "refund", "invoice", "login", "outage", "address"]


@dataclass(frozen=True, slots=True)
class Customer:
    """What the desk knows of a customer; ``answers`` says whether archive and warehouse do."""

    tickets: int
    open: int
    answers: bool = True


@dataclass(slots=True)
class Desk:
    """Counts every connection that it accepts, and the requests that it leaves waiting."""

    port: int = 0
    accepted: int = 0
    pages: int = 0
    computing: int = 0
    waiting: set[str] = field(default_factory=set)
    changed: Callable[[], None] = lambda: None
    _customers: dict[str, Customer] = field(
        default_factory=lambda: {
            "Northwind": Customer(tickets=60, open=1),
            "Initech": Customer(tickets=250_000, open=1_000, answers=False),
        }
    )
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def tidy_up(self, name: str) -> None:
        """Put a customer's old tickets away, so that everything about it is quick again."""
        self._customers[name] = Customer(tickets=60, open=1)

    async def barrier(self) -> int:
        """Return how many connections were accepted, all that were on their way by now included.

        They are accepted in the order in which they came, and this one comes last.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /barrier HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(_HEAD_DEADLINE):
                await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        return self.accepted

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection, for one request."""
        self.accepted += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_DEADLINE):
                target, body = await _read(reader)
            answer = await self._answer(target, body)
            if answer is None:
                await self._leave_waiting(target, reader)
                return
            content = encode(answer)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError):
            return  # the caller has gone, or speaks no HTTP: there is nobody to tell
        finally:
            writer.close()

    async def _leave_waiting(self, target: str, reader: asyncio.StreamReader) -> None:
        """Hold a request without an answer until its sender goes away."""
        self.waiting.add(target)
        self.changed()
        try:
            await reader.read()
        finally:
            self.waiting.discard(target)
            self.changed()

    async def _answer(self, target: str, body: bytes) -> object | None:
        path, _, query = target.partition("?")
        parts = path.strip("/").split("/")
        name = next((known for known in self._customers if known in (*parts, _named(body))), "")
        customer = self._customers.get(name, Customer(0, 0))
        if parts[0] in ("archive", "orders"):
            return ["blue", "green"] if customer.answers else None
        if parts[-1] == "words":
            self.computing += 1
            self.changed()
            return _WORDS
        if parts[-1] == "tickets":
            return await self._page(customer, int(query.partition("=")[2] or 0))
        opened = [f"T-{number}" for number in range(1, customer.open + 1)]
        return {"name": name, "tickets": customer.tickets, "open": opened}

    async def _page(self, customer: Customer, page: int) -> list[int]:
        await asyncio.sleep(_PAUSE)
        self.pages += 1
        self.changed()
        return list(range(page * PAGE, min((page + 1) * PAGE, customer.tickets)))

    async def close(self) -> None:
        """Break every connection off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Read a request; return its target and its body."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    _, target, _ = lines[0].split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(":") for line in lines)}
    return target, await reader.readexactly(int(headers.get("content-length", "0")))


def _named(body: bytes) -> str:
    """Return the customer that a request to the archive names: its last word in quotes."""
    return body.decode("latin-1").rpartition(": ")[2].strip('"}')


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    """Listen on a free port of the loopback until the block is left."""
    desk = Desk()
    server = await asyncio.start_server(desk.connected, "127.0.0.1", 0, backlog=256)
    desk.port = server.sockets[0].getsockname()[1]
    try:
        yield desk
    finally:
        server.close()
        await desk.close()
        await server.wait_closed()
