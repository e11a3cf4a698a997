"""``insula workflows``: push and pull drafts, deploy, publish."""

from pathlib import Path
from typing import Annotated, Any

import typer

from insula.cli.client import Client
from insula.cli.failures import CommandFailed, ExitCode, usage
from insula.cli.local import Target, connect
from insula.cli.options import App, Data, Discover, Json, Page, Take, WorkflowId, perform, segment
from insula.cli.output import say, show, show_json, show_table
from insula.cli.workflow_files import read_workflow, write_workflow

commands = typer.Typer(help="Push and pull workflows, deploy and publish.", no_args_is_help=True)

_SEARCHED_PAGES = 20
_SAME = "same_version"
"""The code of what the server says of a draft that is deployed already."""


@commands.command("push")
def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON.")],
    new: Annotated[
        bool, typer.Option("--new", help="Make another one, whatever is there.")
    ] = False,
    deploy_it: Annotated[bool, typer.Option("--deploy", help="Deploy it, too.")] = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Save a file as a workflow's draft: of its id, else of the workflow with its key, else new."""
    perform(_push(Target(data, app), file, new, deploy_it, as_json))


async def _push(target: Target, file: Path, new: bool, deploy_it: bool, as_json: bool) -> None:
    document = read_workflow(file)
    given = document.pop("id", None)
    async with connect(target) as client:
        found = None if new else given or await _find(client, document)
        if found is None:
            saved = await client.call("POST", "workflows", document)
        else:
            saved = await client.call("PATCH", f"workflows/{segment(str(found))}", document)
        version, same = None, ""
        if deploy_it:
            try:
                version = await _deploy_draft(client, saved["id"], {})
            except CommandFailed as failure:
                same = _said_the_same(failure)
    for problem in saved.get("problems") or []:
        path = ".".join(str(part) for part in problem.get("path") or [])
        say(f"warning: {path}: {problem.get('message')}")
    if as_json:
        show_json(saved if version is None else {**saved, "version": version})
        return
    show(saved["id"])
    deployed = f", deployed as version {version['version']}" if version else ""
    say(f"{'Made' if found is None else 'Saved'} {saved['name']!r}{deployed}.{same}")


def _said_the_same(failure: CommandFailed) -> str:
    """Say which version is what was to be deployed, so that pushing twice does what pushing once
    does; raise what else failed."""
    same = [error for error in failure.errors if error.get("code") == _SAME]
    if failure.code != ExitCode.CONFLICT or not same:
        raise failure
    number = [*(same[0].get("path") or ["?"])][-1]
    return f" Version {number} is this already."


async def _find(client: Client, document: dict[str, Any]) -> str | None:
    """Return the id of the app's one workflow with the document's key."""
    key = document.get("key")
    if not isinstance(key, str):
        return None
    found: list[str] = []
    for page in range(1, _SEARCHED_PAGES + 1):
        listed = await client.call("GET", "workflows", query={"take": 100, "page": page})
        found += [workflow["id"] for workflow in listed if workflow.get("key") == key]
        if len(listed) < 100:
            break
    if len(found) > 1:
        raise usage(
            f"{len(found)} workflows have the key {key!r}: {', '.join(found[:5])}.",
            "Put the id of the one that is meant into the file, as `id: work_…`, or use --new.",
        )
    return found[0] if found else None


@commands.command("pull")
def pull(
    workflow_id: WorkflowId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of stdout.")
    ] = None,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Print a workflow's draft as a file that can be pushed again."""
    perform(_pull(Target(data, app), workflow_id, output, as_json))


async def _pull(target: Target, workflow_id: str, output: Path | None, as_json: bool) -> None:
    async with connect(target) as client:
        workflow = await client.call("GET", f"workflows/{segment(workflow_id)}")
    as_json = as_json or (output is not None and output.suffix == ".json")
    _write(write_workflow(workflow, as_json), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise usage(f"{output} cannot be written: {error.strerror}.") from error
    say(f"Wrote {output}.")


@commands.command("list")
def list_workflows(
    search: Annotated[
        str | None, typer.Option("--search", metavar="TEXT", help="Part of the name.")
    ] = None,
    discover: Discover = False,
    take: Take = 20,
    page: Page = 1,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """List the app's workflows, or with --discover what every app may run."""
    query = {"search": search, "take": take, "page": page}
    perform(_list(Target(data, app), query, discover, as_json))


async def _list(
    target: Target, query: dict[str, str | int | None], discover: bool, as_json: bool
) -> None:
    path = "workflows/discover" if discover else "workflows"
    async with connect(target) as client:
        workflows = await client.call("GET", path, query=query)
    if as_json:
        show_json(workflows)
        return
    rows = (
        (
            workflow["id"],
            workflow["name"],
            (workflow.get("version") or {}).get("version", "draft only"),
            workflow.get("runs_count"),
            "published"
            if workflow.get("discoverable")
            else (workflow.get("app") or {}).get("name"),
        )
        for workflow in workflows
    )
    show_table(("ID", "NAME", "VERSION", "RUNS", ""), rows, "There are no workflows.")


@commands.command("deploy")
def deploy(
    workflow_id: WorkflowId,
    notes: Annotated[str | None, typer.Option("--notes", help="What changed.")] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Even if nothing changed, or tests have not passed."),
    ] = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Make the draft the latest version."""
    body: dict[str, Any] = {"notes": notes} if notes else {}
    if force:
        body["force"] = True
    perform(_deploy(Target(data, app), workflow_id, body, as_json))


async def _deploy(target: Target, workflow_id: str, body: dict[str, Any], as_json: bool) -> None:
    async with connect(target) as client:
        version = await _deploy_draft(client, workflow_id, body)
    if as_json:
        show_json(version)
    else:
        show(f"version {version['version']}")


async def _deploy_draft(client: Client, workflow_id: str, body: dict[str, Any]) -> Any:
    return await client.call("POST", f"workflows/{segment(workflow_id)}/versions", body)


@commands.command("publish")
def publish(
    workflow_id: WorkflowId,
    closed: Annotated[
        bool, typer.Option("--closed", help="Callers see neither its steps nor their outputs.")
    ] = False,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Let every app find and run the deployed workflow."""
    body = {"discoverable": True, "open": not closed}
    perform(_publish(Target(data, app), workflow_id, body, as_json))


@commands.command("unpublish")
def unpublish(
    workflow_id: WorkflowId, data: Data = None, app: App = None, as_json: Json = False
) -> None:
    """Take the workflow out of the catalogue; runs that callers have stay theirs."""
    perform(_publish(Target(data, app), workflow_id, {"discoverable": False}, as_json))


async def _publish(
    target: Target, workflow_id: str, body: dict[str, bool], as_json: bool
) -> ExitCode:
    async with connect(target) as client:
        workflow = await client.call("PATCH", f"workflows/{segment(workflow_id)}", body)
    if not isinstance(workflow, dict):
        raise CommandFailed("The server's answer is no workflow.", ExitCode.UNREACHABLE)
    if as_json:
        show_json(workflow)
    else:
        say(f"{workflow['name']!r} is {'published' if body['discoverable'] else 'not published'}.")
    return ExitCode.OK
