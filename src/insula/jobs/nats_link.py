"""One connection to a NATS broker, made anew whenever it breaks, for as long as it is wanted.

The client library can reconnect by itself. It is not let to: it sees a silent peer after minutes,
waits for it for ever, and lets a message pass before what was subscribed earlier. A client here is
used until the first trouble, then ended with everything it held.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from nats import errors
from nats.aio.client import Client

from insula.jobs.nats_client import EnduringClient
from insula.jobs.pauses import Pauses
from insula.jobs.seldom import Seldom
from insula.jobs.tasks import check_cancelled
from insula.kit.tasks import cancels

CONNECT_WITHIN = 2.0
SILENT_WITHIN = 2.0
"""Seconds in which a broker that is there answers."""
LOOK_EVERY = 1.0

Session = Callable[[Client], Coroutine[Any, Any, None]]
TROUBLE = (errors.Error, OSError, TimeoutError, EOFError, asyncio.InvalidStateError)
"""What the library raises when a broker is away, goes away, or is no broker."""

log = structlog.get_logger("insula.jobs")


class NatsLink:
    """Keeps one working client, and runs sessions beside it for as long as it works."""

    def __init__(self, servers: Sequence[str], prefix: str) -> None:
        self._servers, self._credentials = _split(servers)
        self._silence = f"{prefix}.silence"
        self._sessions: list[Session] = []
        self._client: Client | None = None
        self._opened = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._told = False
        self.seldom = Seldom()
        """Says what strangers cause."""
        self.trouble = "not connected yet"
        """What was in the way when it last could not connect, or lost its connection."""

    @property
    def client(self) -> Client | None:
        """The client that works now, if any."""
        return self._client

    def beside(self, session: Session) -> None:
        """Run the session with each client, cancelled when that client is of no more use.

        To be said before the link starts.
        """
        self._sessions.append(session)

    def start(self) -> None:
        """Begin to connect; nobody has to wait for it."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def opened(self) -> Client:
        """Wait for a client that works."""
        while self._client is None:
            await self._opened.wait()
        return self._client

    async def round_trip(self, client: Client) -> None:
        """Wait until the broker has heard all that was said so far.

        Asks where nobody listens: the broker itself answers so. The library's own flush writes its
        ping before what waits to be written, and breaks the client if it is given up.

        Raises:
            TimeoutError, errors.Error: the broker does not answer.
        """
        before = cancels()
        with contextlib.suppress(errors.NoRespondersError):
            await client.request(self._silence, b"", timeout=SILENT_WITHIN)
        check_cancelled(before)

    async def close(self) -> None:
        """End the connection and everything beside it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self) -> None:
        pauses = Pauses()
        while True:
            client, lost = EnduringClient(self.seldom), asyncio.Event()
            try:
                await self._connect(client, lost)
                pauses.up()
                await self._use(client, lost)
            except* TROUBLE as group:
                self._tell_away(group)
            except* Exception:
                log.exception("broker.session_failed")
            finally:
                self._client = None
                self._opened.clear()
                try:
                    await drop(client)
                except Exception:  # the next connection must not depend on the end of this one
                    log.exception("broker.not_closed")
            check_cancelled()
            await asyncio.sleep(pauses.next())

    async def _connect(self, client: Client, lost: asyncio.Event) -> None:
        async def closed() -> None:
            lost.set()

        async def troubled(error: Exception) -> None:
            """Say what a working broker complains of; the rest has its consequence elsewhere."""
            if self._client is client and not isinstance(error, errors.StaleConnectionError):
                words = str(error)[:200]
                self.seldom.warn("broker.complains", error=type(error).__name__, words=words)

        async with asyncio.timeout(CONNECT_WITHIN * max(2, len(self._servers))):
            await client.connect(
                list(self._servers),
                name="insula",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(CONNECT_WITHIN),
                flusher_queue_size=0,  # bounded, it would wait for a peer that takes nothing
                pending_size=0,  # and swallow a cancel: who publishes looks at what is pending
                closed_cb=closed,
                error_cb=troubled,
                user=self._credentials.get("user"),
                password=self._credentials.get("password"),
                token=self._credentials.get("token"),
            )
        check_cancelled()
        await self.round_trip(client)

    async def _use(self, client: Client, lost: asyncio.Event) -> None:
        self._client = client
        self._opened.set()
        if self._told:
            log.info("broker.back")
            self._told = False
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(session(client)) for session in self._sessions]
            try:
                await self._watch(client, lost)
            finally:
                self._client = None
                self._opened.clear()
                for task in beside:
                    task.cancel()

    async def _watch(self, client: Client, lost: asyncio.Event) -> None:
        """Return when the client has closed, or raise when the broker has fallen silent."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await lost.wait()
                    raise errors.ConnectionClosedError
            except TimeoutError:
                await self.round_trip(client)

    def _tell_away(self, group: BaseExceptionGroup[BaseException]) -> None:
        """Once an outage: attempts repeat every second, and names are enough to know why."""
        kinds = sorted({type(error).__name__ for error in group.exceptions})
        self.trouble = ", ".join(kinds)
        if not self._told:
            log.warning("broker.away", errors=kinds, brokers=[_shown(s) for s in self._servers])
        self._told = True


async def drop(client: Client) -> None:
    """End a client in whatever state it is, its socket and its tasks.

    The library's close waits for a peer that takes nothing, leaves before it has cancelled all its
    tasks if the socket broke, and waits for none of them; hence the looks inside.
    """
    tasks = {client._reading_task, client._ping_interval_task, client._flusher_task}
    tasks |= {subscription._wait_for_msgs_task for subscription in client._subs.values()}
    with contextlib.suppress(*TROUBLE):
        async with asyncio.timeout(SILENT_WITHIN):
            await client.close()
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
    left = [task for task in tasks if task is not None]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _split(servers: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Take credentials out of the addresses: the library would show them, and not decode them."""
    addresses: list[str] = []
    credentials: dict[str, str] = {}
    for server in servers:
        parts = urlsplit(server)
        host = parts.netloc.rpartition("@")[2]
        addresses.append(f"{parts.scheme}://{host}")
        if parts.username and not credentials:
            user = unquote(parts.username)
            credentials = (
                {"token": user}
                if parts.password is None
                else {"user": user, "password": unquote(parts.password)}
            )
    return tuple(addresses), credentials


def _shown(server: str) -> str:
    return server.partition("://")[2]
