"""Sockets of outgoing requests: resolve, check, connect, and close without waiting.

Sockets are used without a transport, so that ``close`` is one system call that has happened when it
returns. A close in mid-exchange resets the connection: what the kernel has not sent yet is dropped.
"""

import asyncio
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import httpcore2

from insula.adapters.http.addresses import parse_address
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.places import Claim, Places
from insula.engine.failures import StepFailure
from insula.kit.turns import Turns

T = TypeVar("T")
Target = tuple[int, tuple[Any, ...]]
"""An address family and a socket address."""

_READ_SIZE = 64 * 1024
_CONNECT_SECONDS = 15.0  # for one address; the next one is tried then
_MAX_ADDRESSES = 8


class Resolver:
    """Names to addresses, in threads of its own: a name that never resolves holds up no other work.

    A look-up cannot be stopped, only left alone; it ends by the system's own limits, and keeps its
    place until then. Those of one app never have all threads.
    """

    def __init__(self, threads: int = 8) -> None:
        self._threads = threads
        self._places = Places(threads, "the look-up of a name")
        self._executor: ThreadPoolExecutor | None = None

    async def resolve(self, host: str, port: int, claim: Claim) -> list[Target]:
        """Return families and socket addresses in the system's order of preference.

        Raises:
            StepFailure: with code ``dns``.
        """
        if parse_address(host) is not None:
            return _look_up(host, port, socket.AI_NUMERICHOST)
        await self._places.enter(claim)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="resolve")
        loop = asyncio.get_running_loop()
        looking = loop.run_in_executor(self._executor, _look_up, host, port, 0)
        looking.add_done_callback(partial(self._looked_up, claim.app_id))
        return await asyncio.shield(looking)

    def _looked_up(self, app_id: str, looking: asyncio.Future[list[Target]]) -> None:
        self._places.leave(app_id)
        if not looking.cancelled():
            looking.exception()  # seen, though nobody may wait for it any more

    def close(self) -> None:
        """Give up the threads; none is waited for."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _look_up(host: str, port: int, flags: int) -> list[Target]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise StepFailure(f"the name {host} cannot be resolved: {error.strerror}", "dns") from None
    except (UnicodeError, ValueError):
        raise StepFailure(f"{host[:80]!r} is not a name that can be resolved", "dns") from None
    targets: dict[Target, None] = {(info[0], info[4]): None for info in found}
    return list(targets)[:_MAX_ADDRESSES]


class Stream(httpcore2.AsyncNetworkStream):
    """A connected socket, in clear or under TLS. Only its owner closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self.received = 0
        self.on_write: Callable[[], None] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, at most ``max_bytes``; empty at the end."""
        try:
            data = await self._loop.sock_recv(self._socket, max_bytes)
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error
        self.received += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write everything."""
        if not buffer:
            return
        if self.on_write is not None:
            self.on_write()
        try:
            await self._loop.sock_sendall(self._socket, buffer)
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Do nothing: the exchange that owns the socket closes it, kindly or by a reset."""

    def close(self, reset: bool = False) -> None:
        """Close now. With ``reset``, drop what is unsent and tell the peer by RST."""
        if self._socket.fileno() == -1:
            return
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def readable(self) -> bool:
        """Say whether something has come, if only the end; of an idle connection: it is over."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


class TlsStream(Stream):
    """TLS over a socket, through memory buffers."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, host: str, turns: Turns
    ) -> None:
        super().__init__(sock)
        self._turns = turns
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def handshake(self) -> None:
        """Agree on keys and check the certificate. Raises ``ssl.SSLError``, ``OSError``."""
        await self._drive(self._tls.do_handshake)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, at most ``max_bytes``; empty at the end."""
        try:
            data = await self._drive(partial(self._tls.read, max_bytes))
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error
        self.received += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write everything, in pieces, so that a large body is not held twice."""
        if self.on_write is not None and buffer:
            self.on_write()
        view = memoryview(buffer)
        try:
            while view:
                written = await self._drive(partial(self._tls.write, view[:_READ_SIZE]))
                view = view[written:]
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def readable(self) -> bool:
        """As that of the socket; what has been received and not read counts, too."""
        return bool(self._tls.pending() or self._incoming.pending) or super().readable()

    async def _drive(self, action: Callable[[], T]) -> T:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                await self._flush()
                if (pause := self._turns.take()) is not None:
                    await pause  # where data waits, receiving it is none
                data = await self._loop.sock_recv(self._socket, _READ_SIZE)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._socket, self._outgoing.read())


async def connect(
    host: str,
    port: int,
    policy: EgressPolicy,
    resolver: Resolver,
    context: ssl.SSLContext | None,
    claim: Claim,
    turns: Turns,
) -> Stream:
    """Connect to an address that the policy has just permitted; with ``context``, agree on TLS.

    Raises:
        StepFailure: ``dns``, ``egress``, ``refused``, ``timeout``, ``network`` or ``tls``.
    """
    targets = await resolver.resolve(host, port, claim)
    kept = set(policy.permitted(host, port, [address[0] for _, address in targets]))
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock = await _connect_first([t for t in targets if t[1][0] in kept], where)
    if context is None:
        return Stream(sock)
    try:
        stream = TlsStream(sock, context, host, turns)
        await stream.handshake()
    except ssl.SSLError as error:
        sock.close()
        raise StepFailure(f"no TLS with {where}: {_tls_words(error)}", "tls") from None
    except OSError as error:
        sock.close()
        raise StepFailure(f"{where} broke off the TLS handshake: {error}", "tls") from None
    except BaseException:
        sock.close()
        raise
    return stream


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return (error.reason or "the connection was broken off").replace("_", " ").lower()


async def _connect_first(targets: Iterable[Target], where: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("no address")
    for family, address in targets:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(sock, address)
        except OSError as error:  # TimeoutError is one of them
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(failure, ConnectionRefusedError):
        raise StepFailure(f"{where} refused the connection", "refused") from None
    if isinstance(failure, TimeoutError):
        raise StepFailure(f"{where} did not take the connection in time", "timeout") from None
    raise StepFailure(
        f"no connection to {where}: {failure.strerror or failure}", "network"
    ) from None
