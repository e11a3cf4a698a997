"""Running the product in this process: the only file of the command line that starts it."""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insula.cli.failures import CommandFailed, ExitCode, usage
from insula.cli.kept_keys import admin_key
from insula.settings import Settings, SettingsError, load_settings


@dataclass(frozen=True, slots=True)
class Hosted:
    """A server in this process: where it listens, and the task that ends when it does."""

    url: str
    serving: "asyncio.Task[None]"


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
async def hosted(data: Path, host: str | None, port: int | None) -> AsyncIterator[Hosted]:
    """Run the product in this process until the block is left."""
    settings = settings_for(data, host, port)
    application = importlib.import_module("insula.app")
    async with application.open_insula(settings) as insula:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(insula.serve(settings.host, settings.port, _once(ready)))
        try:
            await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                await serving
                raise CommandFailed("The server ended at once.", ExitCode.UNREACHABLE)
            yield Hosted(url_of(settings.host, ready.result()), serving)
        finally:
            serving.cancel()
            await asyncio.wait({serving})


def _once(ready: "asyncio.Future[int]") -> Callable[[int], None]:
    def tell(port: int) -> None:
        if not ready.done():
            ready.set_result(port)

    return tell


def url_of(host: str, port: int) -> str:
    """Say where a client on this machine reaches a server that listens on this address."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # listening everywhere includes the loopback
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
