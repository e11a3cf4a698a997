"""A wire of PostgreSQL's LISTEN and NOTIFY: one connection of its own, spoken to by callbacks.

What is told arrives at any time, also between a command and its result; so the connection is read
whenever there is something to be read, and not by whoever waits for a result.
"""

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from insula.jobs.postgres_parts import Joiner, split
from insula.jobs.seldom import Seldom
from insula.jobs.tasks import check_cancelled
from insula.jobs.wire import Broken, Hear, Lost, Packet
from insula.storage.postgres_address import parse

HEARD_WITHIN = 2.0
"""Seconds in which a pooler that passes on what is told has done so."""
_NETWORK = {
    "application_name": "insula signals",
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "target_session_attrs": "read-write",  # a standby can neither listen nor tell
}
# A node that is paused takes nothing from its session, and the session keeps the server from
# forgetting what was told since: it ends after a minute. Nothing told has to be on disk.
_SESSION = "-c tcp_user_timeout=60000 -c synchronous_commit=off -c statement_timeout=5000"
# Who answers holds a lock of the channel, shared: where it can be had, nobody does.
_SEND = b"""
SELECT pg_notify(channel, payload),
  CASE WHEN lock = 0 THEN true
       WHEN pg_try_advisory_lock(lock) THEN NOT pg_advisory_unlock(lock)
       ELSE true END
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS packets (channel, payload, lock)
"""
_POOLED = (
    "a pooler stands before PostgreSQL and keeps back what is told, as PgBouncer does where it "
    "pools transactions: name the server itself in INSULA_CLUSTER_URL"
)


class PostgresWire:
    """One session of the server."""

    def __init__(self, raw: psycopg.AsyncConnection[Any], hear: Hear, lost: Lost) -> None:
        self._raw = raw
        self._pgconn = raw.pgconn
        self._socket = raw.pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._hear = hear
        self._lost = lost
        self._joiner = Joiner()
        self._seldom = Seldom()
        self._numbers = itertools.count(1)
        self._answering: set[str] = set()
        self._reply: asyncio.Future[list[PGresult] | None] | None = None
        self._results: list[PGresult] = []
        self._writing = False
        self._silent = False
        self._broken: str | None = None
        self._loop.add_reader(self._socket, self._readable)

    async def stand(self, channels: Sequence[str], answering: Sequence[str]) -> None:
        """Listen, and hold the locks of those that answer."""
        commands = [f'LISTEN "{channel}"' for channel in channels]
        commands += [f"SELECT pg_advisory_lock_shared({_lock(each)})" for each in answering]
        await self._execute("; ".join(commands).encode())
        self._answering.update(answering)

    async def leave(self, channels: Sequence[str]) -> None:
        """Listen no more, and let go of the locks."""
        answering = self._answering.intersection(channels)
        commands = [f'UNLISTEN "{channel}"' for channel in channels]
        commands += [f"SELECT pg_advisory_unlock_shared({_lock(each)})" for each in answering]
        self._answering -= answering
        await self._execute("; ".join(commands).encode())

    async def send(self, packets: Sequence[Packet]) -> Sequence[bool]:
        """Tell it all in one transaction."""
        rows: list[tuple[str, str, int]] = []
        first: list[int] = []
        for packet in packets:
            asks = packet.question is not None and packet.channel not in self._answering
            lock = _lock(packet.channel) if asks else 0
            first.append(len(rows))
            parts = split(next(self._numbers), packet.frame)
            rows += [(packet.channel, part, lock) for part in parts]
        channels, payloads, locks = zip(*rows, strict=True)
        given = [_array(channels), _array(payloads), _array([str(lock) for lock in locks])]
        result = (await self._execute(_SEND, given))[-1]
        return [result.get_value(row, 1) == b"t" for row in first]

    async def look(self) -> None:
        """Send an empty command."""
        await self._execute(b"")

    async def pid(self) -> int:
        """Return the process that serves this session."""
        result = (await self._execute(b"SELECT pg_backend_pid()"))[-1]
        return int(result.get_value(0, 0) or 0)

    def check(self) -> None:
        """See ``Wire``."""
        if self._broken is not None:
            raise Broken(self._broken)

    async def close(self) -> None:
        """End the session; nothing is waited for."""
        self._silence()
        await self._raw.close()

    async def _execute(self, command: bytes, given: list[bytes] | None = None) -> list[PGresult]:
        """Send a command, or several without parameters, and wait for all results."""
        self.check()
        self._results = []
        reply: asyncio.Future[list[PGresult] | None] = self._loop.create_future()
        self._reply = reply
        try:
            if given is None:
                self._pgconn.send_query(command)
            else:
                self._pgconn.send_query_params(command, given)
            self._flush()
        except psycopg.Error as error:
            self._break(_words(error))
        results = await reply
        if results is None:
            raise Broken(self._broken or "the connection was lost")
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise Broken(_refusal(result))
        return results

    def _flush(self) -> None:
        """Write what the socket takes, and the rest when it takes more."""
        try:
            more = bool(self._pgconn.flush())
        except psycopg.Error as error:
            self._break(_words(error))
            return
        if more and not self._writing:
            self._loop.add_writer(self._socket, self._flush)
        elif self._writing and not more:
            self._loop.remove_writer(self._socket)
        self._writing = more

    def _readable(self) -> None:
        try:
            self._pgconn.consume_input()
            self._collect()
            while (told := self._pgconn.notifies()) is not None:
                self._told(told.relname, told.be_pid, told.extra)
        except psycopg.Error as error:
            self._break(_words(error))

    def _collect(self) -> None:
        while self._reply is not None and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is not None:
                self._results.append(result)
                continue
            reply, self._reply = self._reply, None
            if not reply.done():
                reply.set_result(self._results)

    def _told(self, relation: bytes, sender: int, extra: bytes) -> None:
        channel = relation.decode("ascii", "replace")
        before = self._joiner.unreadable
        frame = self._joiner.join(channel, sender, extra.decode("ascii", "replace"))
        if frame is not None:
            self._hear(channel, frame)
        elif self._joiner.unreadable > before:
            self._seldom.warn("signal.unreadable", sender=sender, bytes=len(extra))

    def _break(self, why: str) -> None:
        """Be of no more use, and have those know who wait or should."""
        self._silence()
        self._broken = why
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            reply.set_result(None)
        self._lost()

    def _silence(self) -> None:
        if self._silent:
            return
        self._silent = True  # the socket's number may be another's from now on
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False


async def open_wire(url: str, hear: Hear, lost: Lost) -> PostgresWire:
    """Connect to the database at the URL.

    Raises:
        Broken: it is away, refuses, or a pooler in front of it keeps back what is told.
    """
    wire = PostgresWire(await _connect(url), hear, lost)
    try:
        # A pooler has made up the number that it gave.
        if await wire.pid() != wire._pgconn.backend_pid:
            await _check_hearing(url, wire)
    except BaseException:
        await wire.close()
        raise
    return wire


async def _check_hearing(url: str, wire: PostgresWire) -> None:
    """See that a session at rest is told what another one tells."""
    channel, heard = f"insula_p_{secrets.token_hex(16)}", asyncio.Event()
    hear, wire._hear = wire._hear, lambda to, _: heard.set() if to == channel else None
    await wire.stand([channel], [])
    other = PostgresWire(await _connect(url), lambda *_: None, lambda: None)
    try:
        await other.send([Packet(channel, b"heard?")])
        async with asyncio.timeout(HEARD_WITHIN):
            await heard.wait()
    except TimeoutError:
        raise Broken(_POOLED) from None
    finally:
        await other.close()
    await wire.leave([channel])
    wire._hear = hear


async def _connect(url: str) -> psycopg.AsyncConnection[Any]:
    parts = parse(url)
    options = f"{parts.get('options', '')} {_SESSION}".strip()
    conninfo = make_conninfo(**{**_NETWORK, **parts, "options": options})
    try:
        raw = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        raise Broken(_words(error)) from None
    try:
        check_cancelled()
    except asyncio.CancelledError:
        await raw.close()
        raise
    return raw


def _lock(channel: str) -> int:
    """Return the number of the advisory lock that stands for a channel."""
    digest = hashlib.blake2b(channel.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def _array(values: Sequence[str]) -> bytes:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return ("{" + ",".join(f'"{value}"' for value in escaped) + "}").encode()


def _words(error: psycopg.Error) -> str:
    """Say what kind of trouble it is: the library's own words may hold anything."""
    state = f" {error.sqlstate}" if error.sqlstate else ""
    return f"{type(error).__name__}{state}"


def _refusal(result: PGresult) -> str:
    state = result.error_field(DiagnosticField.SQLSTATE) or b""
    primary = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b""
    return f"{primary.decode(errors='replace')[:200]} ({state.decode(errors='replace')})"
