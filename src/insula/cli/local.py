"""Reaching a server: the one named by the environment, the one that holds a data folder, or one
started here for as long as the command runs.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from insula.cli.client import Client
from insula.cli.failures import CommandFailed, ExitCode, FolderInUse, usage
from insula.cli.folders import make_data_folder
from insula.cli.kept_keys import admin_key, find_key, read_server
from insula.storage.lock import SOCKET, holder

WAIT_SECONDS = 10.0
"""How long a folder that somebody else holds is waited for."""
_LOOK_SECONDS = 0.05
_LONGEST_ADDRESS = 107


@dataclass(frozen=True, slots=True)
class Target:
    """Which server a command speaks to, and as which app."""

    data: Path | None = None
    app: str | None = None

    def key(self) -> str:
        """Return the key: the environment's, or the one kept in the folder."""
        named = os.environ.get("INSULA_KEY")
        if named and self.app is None:
            return named
        if self.data is not None:
            return find_key(self.data, self.app)
        if self.app is not None:
            raise usage("--app names an app whose key is kept in a folder: give --data DIR too.")
        raise CommandFailed("There is no key.", ExitCode.NOT_ALLOWED, "Set INSULA_KEY.")

    def admin_key(self) -> str:
        """Return the installation's admin key."""
        if self.data is not None:
            return admin_key(self.data)
        named = os.environ.get("INSULA_ADMIN_KEY")
        if named:
            return named
        raise CommandFailed(
            "Apps are made with the installation's admin key, and there is none.",
            ExitCode.NOT_ALLOWED,
            "Set INSULA_ADMIN_KEY, or give --data DIR on the server's own machine.",
        )


@asynccontextmanager
async def connect(target: Target, admin: bool = False, make: bool = False) -> AsyncIterator[Client]:
    """Connect to the target's server, starting one where a folder is named and nobody holds it.

    With ``make`` the folder need not be there yet.
    """
    if target.data is not None and not target.data.is_dir():
        if not make:
            raise usage(f"There is no folder {target.data}.", "`insula apps create` makes it.")
        make_data_folder(target.data)
    if target.data is None and not os.environ.get("INSULA_URL"):
        raise usage("Which server?", "Give --data DIR, or set INSULA_URL and INSULA_KEY.")
    key = target.admin_key() if admin else target.key()
    async with _reached(target) as reached:
        client = Client(reached.url, key, _socket(target.data), alone=reached.alone)
        try:
            yield client
        except CommandFailed as failure:
            if admin and failure.code == ExitCode.NOT_ALLOWED:
                failure.hint = "Set INSULA_ADMIN_KEY to what the server has."
            raise
        finally:
            await client.close()


def _socket(data: Path | None) -> httpx2.AsyncHTTPTransport | None:
    """Return the way through the folder's socket file, which no firewall, proxy or address to
    listen on can close; ``None`` where the kernel takes no path so long, or there is no such file.
    """
    path = None if data is None else data / SOCKET
    if path is None or len(os.fsencode(path)) > _LONGEST_ADDRESS or not path.is_socket():
        return None
    return httpx2.AsyncHTTPTransport(uds=str(path))


@dataclass(frozen=True, slots=True)
class _Reached:
    """Where a server listens. ``alone``: it is the command's own, and nobody else executes runs."""

    url: str
    alone: bool = False


@asynccontextmanager
async def _reached(target: Target) -> AsyncIterator[_Reached]:
    if target.data is None:
        yield _Reached(os.environ["INSULA_URL"])
    else:
        async with AsyncExitStack() as stack:
            yield await _in_folder(target.data, stack)


async def _in_folder(data: Path, stack: AsyncExitStack) -> _Reached:
    """Reach the server that holds a folder, or start one. One that is starting is waited for, and
    so is another command, which has the folder for as long as it takes.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        if (held := holder(data)) is None:
            try:
                return await _here(data, stack)
            except FolderInUse:
                pass  # somebody was quicker
        else:
            server = read_server(data)
            if server is not None and server.pid == held.pid:
                return _Reached(server.address)
        if time.monotonic() >= until:
            raise CommandFailed(
                f"Another command is using {data}.",
                ExitCode.CONFLICT,
                "Try again when it has ended, or keep `insula serve` running and share it.",
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def _here(data: Path, stack: AsyncExitStack) -> _Reached:
    """Start the platform in this process, until the stack is closed."""
    # Loaded here because the whole server would triple the start-up time of other commands.
    from insula.cli.hosting import hosted

    # What others left in the folder is no business of this command.
    here = await stack.enter_async_context(hosted(data, "127.0.0.1", 0, only_asked=True))
    return _Reached(here.url, alone=not os.environ.get("INSULA_DATABASE_URL"))
