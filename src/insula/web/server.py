"""Granian inside this process: our own sockets, our own log, and a stop that ends in time."""

import asyncio
import logging
import os
import socket
import stat
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server as Embedded
from starlette.types import ASGIApp, Receive, Scope, Send

from insula.kit import heap
from insula.settings import SettingsError

BACKLOG = 1024
CONCURRENT = 10_000
"""Requests in work at once; streams and waiting callers are requests. Others wait unread."""
HEADER_SECONDS = 30
"""How long a client may take to send a request's head, and an idle connection is kept."""
HEAD_BYTES = 64 * 1024
_LONGEST_ADDRESS = 107
"""Bytes of a Unix socket's address, which the kernel ends with one more."""

log = structlog.get_logger("insula.web.server")


class _ToStructlog(logging.Handler):
    """Hands the server's own records to structlog; its notice that embedding is new stays out."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "experimental" in message:
            return
        trace = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else None
        facts = {"trace": trace} if trace else {}
        log.log(record.levelno, "http_server", message=message, **facts)


class _Server(Embedded):
    """Granian on a socket that is bound already, so that a free port is known before it serves."""

    def __init__(self, target: ASGIApp, sock: socket.socket) -> None:
        super().__init__(
            target,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=CONCURRENT,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=HEAD_BYTES
            ),
            # Incremental, so that the handlers of everybody else are left alone.
            log_dictconfig={"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}},
        )
        self._unix = sock.family == socket.AF_UNIX
        self._bound = sock

    def _init_shared_socket(self) -> None:
        # Its stub knows neither the constructor, which unpickling uses, nor the attribute's type.
        holder: Any = SocketHolder
        self._shd: Any = holder(self._bound.detach(), self._unix, BACKLOG)

    def end(self) -> None:
        """Take no more connections; ``serve`` returns when the requests in work are done."""
        self.interrupt_signal = True
        self.main_loop_interrupt.set()


class _Open:
    """The requests in work, so that those which outlast a stop can be ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[object]] = set()
        self._cut = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._cut:
                raise
        finally:
            self._tasks.discard(task)

    def cancel(self) -> int:
        """End what is still open; return how many that were."""
        self._cut = True
        for task in self._tasks:
            task.cancel()
        return len(self._tasks)


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 takes a free one.

    Raises:
        SettingsError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"INSULA_HOST, INSULA_PORT: cannot listen on {host} port {port}: {error.strerror}"
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def listen_unix(path: Path) -> socket.socket:
    """Listen on a socket file that only this user may open; one left behind is replaced.

    Raises:
        SettingsError: the path is no socket, or cannot be had.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        before = os.umask(0o177)
        try:
            _bind(sock, path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SettingsError(f"{path}: cannot listen on it: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def _bind(sock: socket.socket, path: Path) -> None:
    """Bind to a path of any length: what is too long for an address is named by its folder."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        sock.bind(str(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


async def serve(
    asgi: ASGIApp,
    host: str,
    port: int,
    ready: Callable[[int], None],
    stop: asyncio.Event,
    *,
    uds: Path | None = None,
    grace: float = 5.0,
    last_call: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until ``stop`` is set; ``ready`` is told the port once connections are taken.

    After the stop no connection is taken; requests in work have ``grace`` seconds to finish. Then
    ``last_call`` is awaited, which lets them be answered, and what is left is cancelled.

    Raises:
        SettingsError: an address cannot be had.
    """
    _route_logs()
    sockets = [listen(host, port)]
    try:
        if uds is not None:
            sockets.append(listen_unix(uds))
        real_port = sockets[0].getsockname()[1]
        await _serve_on(asgi, sockets, lambda: ready(real_port), stop, grace, last_call)
    finally:
        for sock in sockets:
            sock.close()
        _remove(uds)


async def _serve_on(
    asgi: ASGIApp,
    sockets: Sequence[socket.socket],
    ready: Callable[[], None],
    stop: asyncio.Event,
    grace: float,
    last_call: Callable[[], Awaitable[None]] | None,
) -> None:
    open_requests = _Open(asgi)
    servers = [_Server(open_requests, sock) for sock in sockets]
    heap.freeze_loaded()
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(server.serve()) for server in servers]
        stopping = group.create_task(stop.wait())
        ready()
        # A server that ends by itself, with an error or not, ends them all.
        await asyncio.wait([stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
        for server in servers:
            server.end()
        _, late = await asyncio.wait(serving, timeout=grace)
        if late and last_call is not None:
            await last_call()
            _, late = await asyncio.wait(serving, timeout=grace)
        if late:
            log.warning("requests_cut_off", count=open_requests.cancel(), grace=grace)
            await asyncio.wait(serving, timeout=grace)
        stopping.cancel()
        for task in serving:
            task.cancel()


def _remove(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)


def _route_logs() -> None:
    logger = logging.getLogger("_granian")
    logger.handlers = [_ToStructlog(level=logging.WARNING)]
    logger.propagate = False
