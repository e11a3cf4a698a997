"""``insula apps``: make, list and delete apps, with the installation's admin key."""

from pathlib import Path
from typing import Annotated

import typer

from insula.cli.kept_keys import KeptApp, drop, keep
from insula.cli.local import Target, connect
from insula.cli.options import AppId, Data, Json, Page, Take, perform
from insula.cli.output import say, show, show_json, show_table

commands = typer.Typer(help="Make, list and delete apps.", no_args_is_help=True)


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call the app.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an app and print its id and its key, which is shown this once."""
    perform(_create(name, data, as_json))


async def _create(name: str, data: Path | None, as_json: bool) -> None:
    async with connect(Target(data), admin=True, make=True) as client:
        made = await client.call("POST", "/apps", {"name": name})
    app = KeptApp(made["id"], made["name"], made["key"])
    if data is not None:
        keep(data, app)
    if as_json:
        show_json({"app_id": app.app_id, "name": app.name, "key": app.key})
        return
    show(f"app_id {app.app_id}\nkey    {app.key}")
    say(
        f"The key is kept in {data / 'cli.json'}; commands with --data use it."
        if data is not None
        else "The key is not shown again. Set INSULA_KEY to use it."
    )


@commands.command("list")
def list_apps(data: Data = None, take: Take = 20, page: Page = 1, as_json: Json = False) -> None:
    """List the apps of the installation."""
    perform(_list(data, take, page, as_json))


async def _list(data: Path | None, take: int, page: int, as_json: bool) -> None:
    async with connect(Target(data), admin=True) as client:
        apps = await client.call("GET", "/apps", query={"take": take, "page": page})
    if as_json:
        show_json(apps)
        return
    rows = ((app["id"], app["name"], app.get("created_at")) for app in apps)
    show_table(("ID", "NAME", "CREATED"), rows, "There are no apps.")


@commands.command("delete")
def delete(app_id: AppId, data: Data = None, as_json: Json = False) -> None:
    """Delete an app: its keys are revoked, what it runs is cancelled, then all of it goes."""
    perform(_delete(app_id, data, as_json))


async def _delete(app_id: str, data: Path | None, as_json: bool) -> None:
    async with connect(Target(data), admin=True) as client:
        await client.call("DELETE", f"/apps/{app_id}")
    if data is not None:
        drop(data, app_id)
    if as_json:
        show_json(None)
        return
    show(f"{app_id} is deleted.")
