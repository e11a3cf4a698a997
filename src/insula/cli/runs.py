"""``insula runs``: list, show, follow, cancel and replay runs."""

import time
from typing import Annotated, Any

import typer

from insula.cli.client import Client
from insula.cli.event_stream import ServerEvent
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.follow import Follower
from insula.cli.local import Target, connect
from insula.cli.options import (
    App,
    Data,
    Discover,
    Json,
    Page,
    RunId,
    Take,
    WorkflowFilter,
    WorkflowId,
    perform,
    segment,
    workflow_path,
)
from insula.cli.output import printable, say, say_failure, show, show_json, show_table
from insula.cli.progress import RunProgress, describe, duration, milliseconds_between
from insula.cli.run import Shown, show_following, start_and_follow, start_in_background

commands = typer.Typer(help="List, show, follow, cancel and replay runs.", no_args_is_help=True)


@commands.command("list")
def list_runs(
    workflow_id: WorkflowFilter = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="RUNNING, FAILED, …")
    ] = None,
    identifier: Annotated[
        str | None, typer.Option("--identifier", metavar="TEXT", help="Your own name for runs.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Made at or after, ISO 8601.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Made before, ISO 8601.")
    ] = None,
    take: Take = 20,
    page: Page = 1,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """List the app's runs, the newest first, those of other apps' workflows included."""
    query = {
        "workflow_id": workflow_id,
        "status": status.upper() if status else None,
        "identifier": identifier,
        "since": since,
        "until": until,
        "take": take,
        "page": page,
    }
    perform(_list(Target(data, app), query, as_json))


async def _list(target: Target, query: dict[str, str | int | None], as_json: bool) -> None:
    async with connect(target) as client:
        runs = await client.call("GET", "runs", query=query)
    if as_json:
        show_json(runs)
        return
    rows = (
        (run["id"], run["status"], run["workflow_id"], run.get("started_at"), run.get("ended_at"))
        for run in runs
    )
    show_table(("RUN", "STATUS", "WORKFLOW", "STARTED", "ENDED"), rows, "There are no runs.")


@commands.command("show")
def show_run(
    workflow_id: WorkflowId,
    run_id: RunId,
    discover: Discover = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Show a run: its status, its steps, its result."""
    perform(_show(Target(data, app), _path(workflow_id, run_id, discover), as_json))


async def _show(target: Target, path: str, as_json: bool) -> ExitCode:
    async with connect(target) as client:
        run = await client.call("GET", path)
    if as_json:
        show_json(run)
    else:
        _show_run(run)
    return ExitCode.OK


def _show_run(run: dict[str, Any]) -> None:
    progress = RunProgress()
    progress.apply(ServerEvent("run", run))
    show(f"{run['id']}  {run['status']}")
    rows = (
        (
            step.key,
            step.type,
            step.status,
            duration(step.took(int(time.time() * 1000))),
            describe(step),
        )
        for step in progress.steps.values()
    )
    show_table(("STEP", "TYPE", "STATUS", "TOOK", ""), rows, _why_no_steps(run))
    if run.get("error"):
        say_failure(CommandFailed(printable(str(run["error"])), ExitCode.FAILED))
    if run.get("status") == "COMPLETED":
        show_json(run.get("result"))


def _why_no_steps(run: dict[str, Any]) -> str:
    if run.get("ended_at") is None:
        return "No step has started."
    # Whatever a run was started with, there is an input for as long as its data is kept.
    return "Its data has been erased." if run.get("input") is None else "No step had started."


@commands.command("watch")
def watch(
    workflow_id: WorkflowId,
    run_id: RunId,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print every event as a line of JSON.")
    ] = False,
    discover: Discover = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Follow a run to its end; Ctrl-C leaves it running."""
    runs_path = f"{workflow_path(workflow_id, discover)}/runs"
    perform(_watch(Target(data, app), runs_path, segment(run_id), Shown(stream, as_json)))


async def _watch(target: Target, runs_path: str, run_id: str, shown: Shown) -> ExitCode:
    async with connect(target) as client:
        if client.alone:
            await _check_ended(client, f"{runs_path}/{run_id}")
        follower = Follower(client, runs_path, tell=lambda event: None, run_id=run_id)
        return await show_following(follower, shown, cancel_on_interrupt=False)


async def _check_ended(client: Client, path: str) -> None:
    """Refuse to wait for a run that nobody goes on with."""
    run = await client.call("GET", path)
    if run.get("ended_at") is None:
        raise CommandFailed(
            f"The run is {run['status']}, and no server holds the folder: nobody goes on with it.",
            ExitCode.UNREACHABLE,
            "`insula serve --data DIR` does.",
        )


@commands.command("cancel")
def cancel(
    workflow_id: WorkflowId,
    run_id: RunId,
    discover: Discover = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Stop a run; returns when everything in it has stopped."""
    perform(_cancel(Target(data, app), _path(workflow_id, run_id, discover), as_json))


async def _cancel(target: Target, path: str, as_json: bool) -> None:
    async with connect(target) as client:
        asked = time.monotonic()
        run = await client.call("POST", f"{path}/cancel", query={"verbose": "all"})
        took = (time.monotonic() - asked) * 1000
    if as_json:
        show_json(run)
        return
    status = run["status"]
    if status != "CANCELLED":
        erased = " Its data has been erased." if run.get("input") is None else ""
        say(f"The run had already ended: {status}.{erased}")
        return
    show(f"{run['id']}  CANCELLED")
    for line in told_of(run.get("cancellation"), took):
        say(line)


def told_of(receipt: Any, took: float) -> list[str]:
    """Say in lines what a receipt holds: how long it took to stop, and what was interrupted."""
    receipt = receipt if isinstance(receipt, dict) else {}
    lines = [f"Everything had stopped when the answer came, {took:.0f} ms after it was asked for."]
    stopped = milliseconds_between(receipt.get("requested_at"), receipt.get("stopped_at"))
    if stopped is not None:
        # Of a command that has only just started, most of its own time is spent on connecting.
        lines[0] = f"Everything had stopped {stopped} ms after the server was asked."
    entries = receipt.get("interrupted")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            effect = "; its effect may have happened" if entry.get("effect_possible") else ""
            spent = entry.get("for_ms")
            after = f" for {duration(int(spent))}" if isinstance(spent, int | float) else ""
            lines.append(f"  {entry.get('key')}: {entry.get('doing')}{after}{effect}")
    return lines


@commands.command("replay")
def replay(
    workflow_id: WorkflowId,
    run_id: RunId,
    step: Annotated[str, typer.Option("--step", metavar="KEY", help="Where to begin again.")],
    stream: Annotated[
        bool, typer.Option("--stream", help="Print every event as a line of JSON.")
    ] = False,
    background: Annotated[
        bool, typer.Option("--background", help="Print the new run's id and leave it running.")
    ] = False,
    discover: Discover = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Run it again from a step, keeping what came before; Ctrl-C cancels the new run."""
    path = f"{_path(workflow_id, run_id, discover)}/replay"
    runs_path = f"{workflow_path(workflow_id, discover)}/runs"
    target, body = Target(data, app), {"stepKey": step}
    if background:
        perform(start_in_background(target, path, body, as_json))
    else:
        perform(start_and_follow(target, runs_path, path, body, Shown(stream, as_json)))


def _path(workflow_id: str, run_id: str, discover: bool) -> str:
    return f"{workflow_path(workflow_id, discover)}/runs/{segment(run_id)}"
