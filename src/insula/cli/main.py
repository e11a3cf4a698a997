"""The ``insula`` command: its verbs in one place."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from insula import __version__
from insula.cli import apps, keys, retention, runs, schedules, secrets, workflows
from insula.cli.database import commands as database
from insula.cli.demo import demo
from insula.cli.doctor import doctor
from insula.cli.output import show
from insula.cli.run import run
from insula.cli.serve import serve
from insula.cli.worker import worker
from insula.kit import heap

application = typer.Typer(
    name="insula",
    help="AI workflows whose runs really stop when they are cancelled.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
application.command("serve")(serve)
application.command("worker")(worker)
application.command("demo")(demo)
application.add_typer(apps.commands, name="apps")
application.add_typer(keys.commands, name="keys")
application.add_typer(workflows.commands, name="workflows")
application.command("run")(run)
application.add_typer(runs.commands, name="runs")
application.add_typer(database.commands, name="db")
application.add_typer(schedules.commands, name="schedules")
application.add_typer(retention.commands, name="retention")
application.add_typer(secrets.commands, name="secrets")
application.command("doctor")(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"insula {__version__}")
        raise typer.Exit


@application.callback()
def insula(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """AI workflows whose runs really stop when they are cancelled.

    Every command but serve, worker, demo, db and doctor speaks to a server: the one at INSULA_URL,
    with the key in INSULA_KEY; or with --data DIR the one that holds the folder, or else one that
    runs for as long as the command does.
    """


def main() -> None:
    """Run the command line."""
    heap.relax_collector()
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding does not have is no reason to end in mid-sentence.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    application()
