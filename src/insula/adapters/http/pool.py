"""Connections kept for reuse, and exchanges on them: one request, one answer, then kept or closed.

httpcore speaks HTTP/1.1; who owns which socket is decided here, so that whatever ends an exchange
(an error, a cancel) has closed its socket when it comes out, and such a socket is never reused.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpcore2
import httpx2

from insula.adapters.http.decoding import BodyDecoder
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.network import Resolver, Stream, connect
from insula.adapters.http.places import Claim, Places
from insula.adapters.http.protocol import Protocol
from insula.kit.turns import Turns

_IDLE_SECONDS = 4.0  # servers usually close after five
_FRESH_SECONDS = 1.0  # a request that must not be sent twice takes only a connection this young
_TURN = 50
"""Steps of parsing in a turn of the loop, for all connections: one or two milliseconds."""

Origin = tuple[str, str, int]


def origin_of(url: httpx2.URL) -> Origin:
    """Return scheme, host and port."""
    return url.scheme, url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)


def origin_text(url: httpx2.URL) -> str:
    """Return the origin as text: all of a URL that may stand in an error."""
    return f"{url.scheme}://{url.netloc.decode()}"


@dataclass(slots=True, eq=False)
class _Connection:
    origin: Origin
    stream: Stream
    protocol: Protocol
    app_id: str = ""
    """Whose place the exchange on it holds."""
    idle_since: float = 0.0
    expiry: asyncio.TimerHandle | None = None


class Exchange:
    """One request and its answer. ``end`` must be called; it waits for nothing."""

    def __init__(self, pool: "Pool", connection: _Connection) -> None:
        self._pool = pool
        self.turns = pool.turns
        self._connection: _Connection | None = connection
        self._received_before = connection.stream.received
        self.reused = connection.idle_since > 0

    async def send(
        self, request: httpcore2.Request, on_write: Callable[[], None], max_bytes: int
    ) -> httpcore2.Response:
        """Write the request and read the head of the answer. ``on_write`` is told of each write.

        On the wire, the answer may take a few times ``max_bytes``: else ``limit_output``.
        """
        connection = self._alive()
        connection.protocol.begin(max_bytes)
        connection.stream.on_write = on_write
        return await connection.protocol.handle_async_request(request)

    async def body(
        self, response: httpcore2.Response, decoder: BodyDecoder
    ) -> AsyncIterator[bytes]:
        """Read and unpack the body to its end, in turns with everything else."""
        async for data in response.aiter_stream():
            for number, piece in enumerate(decoder.feed(data)):
                # the first piece is paid for with the event that brought it
                if number and (pause := self.turns.take()) is not None:
                    await pause
                if piece:
                    yield piece
        decoder.finish()
        await response.aclose()

    @property
    def silent(self) -> bool:
        """Whether not one byte of an answer has come."""
        return self._alive().stream.received == self._received_before

    def end(self) -> None:
        """Keep the connection if request and answer are complete, else reset it, at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.stream.on_write = None
            self._pool.take_back(connection)

    def _alive(self) -> _Connection:
        if self._connection is None:
            raise httpcore2.ReadError("the exchange has ended")
        return self._connection


class Pool:
    """Connections under one policy. At most ``limit`` exchanges at a time, a share of them an app's
    own; others wait.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        tls: ssl.SSLContext | None = None,
        limit: int = 1000,
        idle_limit: int = 100,
    ) -> None:
        self.policy = policy
        self.turns = Turns(_TURN)
        self._tls = tls
        self._places = Places(limit, "a free connection")
        self._idle_limit = idle_limit
        self._idle: dict[Origin, list[_Connection]] = {}
        self._resolver = Resolver()
        self._closed = False
        self.open_connections = 0

    async def exchange(
        self, url: httpx2.URL, replayable: bool, claim: Claim, fresh: bool = False
    ) -> Exchange:
        """Find or make a connection for a request to ``url``.

        ``replayable`` says that the request may be sent again if an idle connection turns out to
        be closed; ``fresh`` asks for a new connection. Raises ``StepFailure`` as ``connect`` does.
        """
        await self._places.enter(claim)
        try:
            origin = origin_of(url)
            connection = None if fresh else self._reuse(origin, replayable)
            connection = connection or await self._connect(origin, claim)
        except BaseException:
            self._places.leave(claim.app_id)
            raise
        connection.app_id = claim.app_id
        return Exchange(self, connection)

    def _reuse(self, origin: Origin, replayable: bool) -> _Connection | None:
        waiting = self._idle.get(origin, [])
        oldest = time.monotonic() - (_IDLE_SECONDS if replayable else _FRESH_SECONDS)
        while waiting:
            connection = self._leave_idle(origin, waiting)
            if connection.idle_since >= oldest and not connection.stream.readable():
                return connection
            self._close(connection)
        return None

    def _leave_idle(self, origin: Origin, waiting: list[_Connection]) -> _Connection:
        connection = waiting.pop()
        if not waiting:
            del self._idle[origin]
        if connection.expiry is not None:
            connection.expiry.cancel()
        return connection

    async def _connect(self, origin: Origin, claim: Claim) -> _Connection:
        scheme, host, port = origin
        context = self._context() if scheme == "https" else None
        stream = await connect(host, port, self.policy, self._resolver, context, claim, self.turns)
        self.open_connections += 1
        home = httpcore2.Origin(scheme.encode(), host.encode(), port)
        return _Connection(origin, stream, Protocol(home, stream, self.turns))

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def take_back(self, connection: _Connection) -> None:
        """Keep a connection whose exchange is complete, close any other."""
        self._places.leave(connection.app_id)
        complete = connection.protocol.at_rest
        idle = sum(len(each) for each in self._idle.values())
        if not complete or self._closed or idle >= self._idle_limit:
            self._close(connection, reset=not connection.protocol.is_idle())
            return
        connection.idle_since = time.monotonic()
        loop = asyncio.get_running_loop()
        connection.expiry = loop.call_later(_IDLE_SECONDS, self._expire, connection)
        self._idle.setdefault(connection.origin, []).append(connection)

    def _expire(self, connection: _Connection) -> None:
        waiting = self._idle.get(connection.origin, [])
        if connection in waiting:
            waiting.remove(connection)
            if not waiting:
                del self._idle[connection.origin]
            self._close(connection)

    def _close(self, connection: _Connection, reset: bool = False) -> None:
        connection.stream.close(reset=reset)
        self.open_connections -= 1

    async def close(self) -> None:
        """Close what is idle and keep nothing from now on. Exchanges close with their tasks."""
        self._closed = True
        for origin in list(self._idle):
            while (waiting := self._idle.get(origin)) is not None:
                self._close(self._leave_idle(origin, waiting))
        self._resolver.close()
