"""``insula run``: start a run and follow it, stream it, or leave it in the background."""

import uuid
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from insula.cli.event_stream import ServerEvent
from insula.cli.failures import CommandFailed, ExitCode, code_of_run, usage
from insula.cli.follow import Follower
from insula.cli.local import Target, connect
from insula.cli.options import App, Data, Discover, Json, WorkflowId, perform, workflow_path
from insula.cli.output import printable, say, say_failure, show, show_json, show_json_line
from insula.cli.progress import RunProgress, duration, milliseconds_between, progress_for
from insula.cli.run_inputs import read_input


@dataclass(frozen=True, slots=True)
class Shown:
    """How a followed run is shown: its events as JSON lines, the run as JSON, or for people."""

    stream: bool = False
    as_json: bool = False


def run(
    workflow_id: WorkflowId,
    input_text: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="JSON, @FILE, or @- for stdin.")
    ] = None,
    input_file: Annotated[
        list[str] | None,
        typer.Option("--input-file", metavar="FIELD=PATH", help="A file for a field of the input."),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="latest, draft, a number or an id."),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--from-step", metavar="KEY", help="Begin at this step.")
    ] = None,
    identifier: Annotated[
        str | None, typer.Option("--identifier", metavar="TEXT", help="Your own name for the run.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Limit of the whole run.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print every event as a line of JSON.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Print the run's id and leave it running.")
    ] = False,
    discover: Discover = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Run a workflow and print its result; Ctrl-C cancels the run."""
    body: dict[str, Any] = {
        "workflow_version_id": int(version) if version and version.isdecimal() else version,
        "from_step_key": step,
        "identifier": identifier,
        "timeout": timeout,
    }
    body = {name: value for name, value in body.items() if value is not None}
    path = f"{workflow_path(workflow_id, discover)}/runs"
    target = Target(data, app)
    perform(
        _run(target, path, body, (input_text, input_file or []), background, Shown(stream, as_json))
    )


async def _run(
    target: Target,
    path: str,
    body: dict[str, Any],
    given: tuple[str | None, list[str]],
    background: bool,
    shown: Shown,
) -> ExitCode:
    if background and shown.stream:
        raise usage("--stream and --background exclude each other.")
    value = read_input(*given)
    if value is not None:
        body["input"] = value
    if background:
        return await start_in_background(target, path, body, shown.as_json)
    return await start_and_follow(target, path, path, body, shown)


async def start_in_background(
    target: Target, path: str, body: dict[str, Any], as_json: bool
) -> ExitCode:
    """Start a run (or a replay, at its own path) and print its id."""
    async with connect(target) as client:
        started = await client.call("POST", path, {**body, "background": True})
    if as_json:
        show_json(started)
    else:
        show(started["id"])
    if client.alone:
        say("No server holds the folder: the run begins when one does, see `insula serve`.")
    return ExitCode.OK


async def start_and_follow(
    target: Target, runs_path: str, start_path: str, body: dict[str, Any], shown: Shown
) -> ExitCode:
    """Start a run (or a replay, at its own path), follow it and print how it ended."""
    async with connect(target) as client:
        follower = Follower(
            client,
            runs_path,
            tell=lambda event: None,
            body={**body, "stream": True},
            idempotency_key=str(uuid.uuid4()),
            start_path=start_path,
        )
        return await show_following(follower, shown, cancel_on_interrupt=True)


async def show_following(follower: Follower, shown: Shown, cancel_on_interrupt: bool) -> ExitCode:
    """Follow a run, show how far it is, and print how it ended."""
    progress = follower.progress
    display = progress_for(progress, quiet=shown.stream or shown.as_json)

    def tell(event: ServerEvent) -> None:
        step = progress.apply(event)
        display.told(step)
        if shown.stream:
            show_json_line({"event": event.name, "id": event.id, "data": event.data})

    follower.tell = tell
    with display.showing():
        interrupted = await follower.to_the_end(cancel_on_interrupt)
    if shown.as_json and not shown.stream:
        show_json(progress.run)
    elif not shown.stream:
        _show_end(progress)
    code = code_of_run(str(progress.run.get("status")))
    return ExitCode.INTERRUPTED if interrupted and code == ExitCode.CANCELLED else code


def _show_end(progress: RunProgress) -> None:
    run = progress.run
    # The steps do not say it: a replay has those that it kept, from long before it.
    took = milliseconds_between(run.get("started_at"), run.get("ended_at"))
    after = f" after {duration(took)}" if took is not None else ""
    if run.get("status") == "FAILED":
        message = f"FAILED{after}: {printable(str(run.get('error') or 'no reason given'))}"
        say_failure(CommandFailed(message, ExitCode.FAILED))
        return
    say(f"{run.get('status')}{after}")
    if run.get("status") == "COMPLETED":
        show_json(run.get("result"))
