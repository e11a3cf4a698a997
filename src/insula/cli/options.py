"""The options that commands share, and the one way in which a command runs."""

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from insula.cli.failures import CommandFailed, ExitCode, usage
from insula.cli.output import say, say_failure

_ID = re.compile(r"[A-Za-z0-9_-]+")


def segment(text: str) -> str:
    """Return an id as one segment of a path.

    Raises:
        CommandFailed: it is no id, and would lead somewhere else.
    """
    if not _ID.fullmatch(text):
        raise usage(f"{text!r} is not an id.")
    return text


def _id(text: str | None) -> str | None:
    if text is not None and not _ID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not an id.")
    return text


Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data folder, instead of INSULA_URL."),
]
App = Annotated[
    str | None,
    typer.Option("--app", metavar="APP", help="Id or name of an app kept in the data folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Discover = Annotated[
    bool, typer.Option("--discover", help="The workflow is another app's, found in the catalogue.")
]
Take = Annotated[int, typer.Option("--take", min=1, max=100, help="How many to list.")]
Page = Annotated[int, typer.Option("--page", min=1, help="Which page of them.")]


WorkflowId = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="Id of the workflow.", callback=_id)
]
WorkflowFilter = Annotated[
    str | None,
    typer.Option("--workflow", metavar="WORKFLOW", help="Of this workflow alone.", callback=_id),
]
AppId = Annotated[str, typer.Argument(metavar="APP", help="Id of the app.", callback=_id)]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", callback=_id)]


def perform(work: Coroutine[Any, Any, ExitCode | None]) -> None:
    """Run a command to its end and leave with its exit code."""
    try:
        code = asyncio.run(work)
    except CommandFailed as failure:
        say_failure(failure)
        code = failure.code
    except PermissionError as error:  # of whichever file of the data folder came first
        told = usage(f"{error.filename}: {error.strerror}.", "Run this as its owner.")
        say_failure(told)
        code = told.code
    except KeyboardInterrupt:
        say("Interrupted.")
        code = ExitCode.INTERRUPTED
    if code:
        raise typer.Exit(int(code))


def workflow_path(workflow_id: str, discover: bool) -> str:
    """Return the path of a workflow, among the app's own or in the catalogue."""
    return f"{'workflows/discover' if discover else 'workflows'}/{segment(workflow_id)}"
