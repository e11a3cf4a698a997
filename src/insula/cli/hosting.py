"""Running the product in this process: the only file of the command line that starts it."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from insula.app import Insula, open_insula
from insula.cli.failures import CommandFailed, ExitCode, FolderInUse, usage
from insula.cli.kept_keys import admin_key
from insula.errors import Unavailable
from insula.settings import Settings, SettingsError, load_settings
from insula.storage.lock import FolderLocked
from insula.storage.migrate import ForeignFile, NewerSchema
from insula.storage.postgres_address import DatabaseAway, DatabaseUnusable


@dataclass(frozen=True, slots=True)
class Hosted:
    """A server in this process: where it listens, and the task that ends when it does.

    ``hurry``, called while it is being stopped, lets it wait for nothing that still runs.
    """

    url: str
    serving: "asyncio.Task[None]"
    hurry: Callable[[], None]


def data_folder(given: Path | None) -> Path:
    """Return the data folder: the one given, else the environment's, else the default."""
    named = os.environ.get("INSULA_DATA_DIR")
    return given or Path(named or Settings.model_fields["data_dir"].default)


def settings_for(
    data: Path, host: str | None = None, port: int | None = None, make_key: bool = True
) -> Settings:
    """Read the environment for this folder; a given host or port comes before it.

    Raises:
        CommandFailed: a setting cannot be used; the message names it.
    """
    given: dict[str, Any] = {"data_dir": data}
    given |= {"admin_key": admin_key(data)} if make_key else {}
    given |= {"host": host} if host is not None else {}
    given |= {"port": port} if port is not None else {}
    try:
        return load_settings(**given)
    except SettingsError as error:
        raise usage(str(error)) from error


@asynccontextmanager
async def hosted(
    data: Path, host: str | None, port: int | None, *, only_asked: bool = False
) -> AsyncIterator[Hosted]:
    """Run the product in this process until the block is left; with ``only_asked`` for what is
    asked of it, and for nothing else.

    Raises:
        CommandFailed: it cannot be started here; the message says why.
    """
    async with _opened(settings_for(data, host, port), _serving, only_asked=only_asked) as here:
        yield here


@asynccontextmanager
async def working(data: Path) -> AsyncIterator[Hosted]:
    """Execute the runs of a cluster in this process, without HTTP, until the block is left.

    Raises:
        CommandFailed: it cannot be started here; the message says why.
    """
    settings = settings_for(data)
    if settings.database_url is None:
        raise usage(
            "A worker shares a database with the servers: set INSULA_DATABASE_URL (and "
            "INSULA_CLUSTER_URL) as they do."
        )
    async with _opened(settings, _working) as here:
        yield here


_DISK_REFUSES = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
_TOLD = (
    FolderLocked,
    NewerSchema,
    ForeignFile,
    SettingsError,
    DatabaseUnusable,
    sqlite3.Error,
    DBAPIError,
    OSError,
    Unavailable,
    ExceptionGroup,
)
"""What is said in words, where the product cannot be started."""

Start = Callable[[Insula, Settings], AbstractAsyncContextManager[Hosted]]


@asynccontextmanager
async def _opened(
    settings: Settings, start: Start, *, only_asked: bool = False
) -> AsyncIterator[Hosted]:
    failure: Exception | None = None
    try:
        async with open_insula(settings, only_asked=only_asked) as insula:
            try:
                async with start(insula, settings) as here:
                    yield here
            except Exception as error:
                # Carried round the product's task group, which would wrap it.
                failure = error
    except _TOLD as error:
        told = _in_words(error)
        if told is None:
            raise
        raise told from error
    if failure is not None:
        raise failure


def _in_words(error: Exception) -> CommandFailed | None:
    """Return how a command fails that could not start the product; ``None``: that is a defect."""
    if isinstance(error, FolderLocked):
        return FolderInUse(str(error), ExitCode.CONFLICT)
    if isinstance(error, NewerSchema | ForeignFile):
        return CommandFailed(str(error), ExitCode.CONFLICT)
    if isinstance(error, DatabaseAway):
        return CommandFailed(str(error), ExitCode.UNREACHABLE)
    if isinstance(error, SettingsError | DatabaseUnusable):
        return usage(str(error))
    if isinstance(error, sqlite3.Error | DBAPIError):
        why = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        return CommandFailed(f"The database cannot be opened: {why}.", ExitCode.FAILED)
    if isinstance(error, OSError):
        return _of_the_disk(error)
    words = _not_now(error)
    return None if words is None else CommandFailed(words, ExitCode.UNREACHABLE)


def _of_the_disk(error: OSError) -> CommandFailed | None:
    """Say what is wrong with the data folder; without a name or such a reason it is not of it."""
    if error.errno in _DISK_REFUSES:
        words = f"The data folder cannot be written to: {error.strerror}."
        return CommandFailed(words, ExitCode.UNREACHABLE)
    return usage(f"{error.filename}: {error.strerror}.") if error.filename else None


def _not_now(error: Exception) -> str | None:
    """Say that the database went away while the product started; ``None``: something else did."""
    first: BaseException = error
    while isinstance(first, BaseExceptionGroup):
        if len(first.exceptions) > 1:
            return None
        first = first.exceptions[0]
    return f"It could not be started: {first}" if isinstance(first, Unavailable) else None


@asynccontextmanager
async def _serving(insula: Insula, settings: Settings) -> AsyncIterator[Hosted]:
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(
        insula.serve(settings.host, settings.port, ready.set_result, stop)
    )
    try:
        watched: set[asyncio.Future[Any]] = {serving, ready}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await _ended(serving)
        yield Hosted(url_of(settings.host, ready.result()), serving, insula.hurry.set)
    finally:
        stop.set()
        await asyncio.wait({serving})


@asynccontextmanager
async def _working(insula: Insula, settings: Settings) -> AsyncIterator[Hosted]:
    stop = asyncio.Event()
    working = asyncio.create_task(insula.work(stop))
    try:
        yield Hosted("", working, insula.hurry.set)
    finally:
        stop.set()
        await asyncio.wait({working})


async def _ended(serving: "asyncio.Task[None]") -> None:
    try:
        await serving
    except SettingsError as error:
        raise usage(str(error)) from error
    raise CommandFailed("The server ended at once.", ExitCode.UNREACHABLE)


def url_of(host: str, port: int) -> str:
    """Say where a client on this machine reaches a server that listens on this address."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # listening everywhere includes the loopback
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
