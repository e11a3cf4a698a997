"""``insula serve``: run the platform until it is told to stop."""

import os
from pathlib import Path
from typing import Annotated

import typer

from insula.cli.failures import CommandFailed
from insula.cli.folders import make_data_folder
from insula.cli.kept_keys import Server, write_server
from insula.cli.output import say, say_failure
from insula.cli.signals import Signals


def serve(
    host: Annotated[
        str | None, typer.Option("--host", metavar="ADDRESS", help="Default: INSULA_HOST.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Default: INSULA_PORT; 0: a free one."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Default: INSULA_DATA_DIR.")
    ] = None,
) -> None:
    """Serve the API; Ctrl-C stops what runs, stores it and ends."""
    try:
        # uvloop is loaded by the one command that serves for long.
        from uvloop import run

        run(_serve(host, port, data))
    except CommandFailed as failure:
        say_failure(failure)
        raise typer.Exit(int(failure.code)) from failure


async def _serve(host: str | None, port: int | None, data: Path | None) -> None:
    # Loaded here, with the whole server, to keep other commands quick.
    from insula.cli.hosting import data_folder, hosted

    folder = data_folder(data)
    make_data_folder(folder)
    with Signals() as signals:
        async with hosted(folder, host, port) as server:
            signals.handle(server.hurry)
            write_server(folder, Server(os.getpid(), server.url))
            try:
                say(f"Serving {folder} at {server.url}")
                await signals.until_stopped(server.serving)
            finally:
                (folder / "server.json").unlink(missing_ok=True)
                say("Stopping: live runs may end first; a second signal stops them where they are.")
