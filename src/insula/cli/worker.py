"""``insula worker``: execute runs of a cluster, without HTTP, until it is told to stop."""

from pathlib import Path
from typing import Annotated

import typer

from insula.cli.failures import CommandFailed
from insula.cli.folders import make_data_folder
from insula.cli.output import say, say_failure
from insula.cli.signals import Signals
from insula.kit import heap


def worker(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Default: INSULA_DATA_DIR.")
    ] = None,
) -> None:
    """Execute queued, recovered and scheduled runs beside the servers of a cluster."""
    try:
        # uvloop is loaded by the commands that serve for long.
        from uvloop import run

        run(_work(data))
    except CommandFailed as failure:
        say_failure(failure)
        raise typer.Exit(int(failure.code)) from failure


async def _work(data: Path | None) -> None:
    # Loaded here, with the whole product, to keep other commands quick.
    from insula.cli.hosting import data_folder, working

    folder = data_folder(data)
    make_data_folder(folder)
    with Signals() as signals:
        async with working(folder) as node:
            signals.handle(node.hurry)
            try:
                say(f"Working, with {folder}")
                heap.freeze_loaded()
                await signals.until_stopped(node.serving)
            finally:
                say("Stopping: live runs may end first; a second signal stops them where they are.")
