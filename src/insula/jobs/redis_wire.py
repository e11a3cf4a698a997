"""A wire of the channels of Redis, or of a server that speaks its protocol: one connection.

Five commands over our own few lines: the client library reconnects, subscribes anew and sends again
by itself, which is what the link above does, and needs a second connection to publish.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from insula.jobs.resp import NotResp, Push, Refusal, packed, read
from insula.jobs.wire import Broken, Hear, Lost, Packet

PORT = 6379
_PING = packed(b"PING")
_MESSAGE = b"message"


class RedisWire:
    """One connection. Confirmations of subscribing come as pushes; a ping behind them tells."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hear: Hear, lost: Lost
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._hear = hear
        self._lost = lost
        self._reply: asyncio.Future[list[object] | None] | None = None
        self._replies: list[object] = []
        self._wanted = 0
        self._broken: str | None = None
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def stand(self, channels: Sequence[str], answering: Sequence[str]) -> None:
        """Subscribe; the server knows by itself where nobody does."""
        await self.execute(packed(b"SUBSCRIBE", *(each.encode() for each in channels)) + _PING)

    async def leave(self, channels: Sequence[str]) -> None:
        """Unsubscribe."""
        await self.execute(packed(b"UNSUBSCRIBE", *(each.encode() for each in channels)) + _PING)

    async def send(self, packets: Sequence[Packet]) -> Sequence[bool]:
        """Publish them all, and learn how many heard each."""
        commands = [packed(b"PUBLISH", each.channel.encode(), each.frame) for each in packets]
        replies = await self.execute(b"".join(commands), len(packets))
        return [reply != b"0" for reply in replies]

    async def look(self) -> None:
        """Send a ping."""
        await self.execute(_PING)

    def check(self) -> None:
        """See ``Wire``."""
        if self._broken is not None:
            raise Broken(self._broken)

    async def close(self) -> None:
        """End the connection; nothing is waited for but our own task."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()

    async def execute(self, commands: bytes, wanted: int = 1) -> list[object]:
        """Send commands and wait for so many replies, none of which may be a refusal."""
        self.check()
        reply: asyncio.Future[list[object] | None] = asyncio.get_running_loop().create_future()
        self._reply, self._replies, self._wanted = reply, [], wanted
        self._writer.write(commands)
        with suppress(OSError):  # whoever reads learns of it, too
            await self._writer.drain()
        replies = await reply
        if replies is None:
            raise Broken(self._broken or "the connection was lost")
        for each in replies:
            if isinstance(each, Refusal):
                raise Broken(f"Redis refuses: {each.code}")
        return replies

    async def _read(self) -> None:
        try:
            while True:
                reply = await read(self._reader)
                if isinstance(reply, Push):
                    self._told(reply.parts)
                else:
                    self._answered(reply)
        except NotResp as error:
            self._break(f"it is no Redis of version 6 or newer: {error}")
        except (OSError, EOFError) as error:
            self._break(type(error).__name__)

    def _told(self, parts: list[object]) -> None:
        if len(parts) == 3 and parts[0] == _MESSAGE:
            channel, frame = parts[1], parts[2]
            if isinstance(channel, bytes) and isinstance(frame, bytes):
                self._hear(channel.decode("ascii", "replace"), frame)

    def _answered(self, reply: object) -> None:
        if self._reply is None:
            raise NotResp("an answer to nothing")
        self._replies.append(reply)
        # What refuses to subscribe comes where the ping's answer is awaited.
        if len(self._replies) == self._wanted:
            done, self._reply = self._reply, None
            if not done.done():
                done.set_result(self._replies)

    def _break(self, why: str) -> None:
        self._broken = why
        reply, self._reply = self._reply, None
        if reply is not None and not reply.done():
            reply.set_result(None)
        self._lost()


def describe(url: str) -> str:
    """Return the address without credentials.

    Raises:
        ValueError: it is no address of a Redis server; says nothing of it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError("is no address of a Redis server: redis://user:password@host:6379")
    return f"{host}:{port or PORT}"


async def open_wire(url: str, hear: Hear, lost: Lost) -> RedisWire:
    """Connect to the server at the URL, and say who is there.

    Raises:
        Broken: it refuses, or is none.
        OSError: it is away.
    """
    parts = urlsplit(url)
    context = ssl.create_default_context() if parts.scheme == "rediss" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or PORT, ssl=context)
    wire = RedisWire(reader, writer, hear, lost)
    try:
        user = unquote(parts.username or "default").encode()
        proof = [b"AUTH", user, unquote(parts.password).encode()] if parts.password else []
        await wire.execute(packed(b"HELLO", b"3", *proof, b"SETNAME", b"insula"))
    except BaseException:
        await wire.close()
        raise
    return wire
