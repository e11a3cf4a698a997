"""``insula apps``: make and list apps, with the installation's admin key."""

from pathlib import Path
from typing import Annotated

import typer

from insula.cli.kept_keys import KeptApp, keep
from insula.cli.local import Target, connect
from insula.cli.options import Data, Json, Page, Take, perform
from insula.cli.output import say, show, show_json, show_table

commands = typer.Typer(help="Make and list apps.", no_args_is_help=True)


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call the app.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an app and print its id and its key, which is shown this once."""
    perform(_create(name, data, as_json))


async def _create(name: str, data: Path | None, as_json: bool) -> None:
    async with connect(Target(data), admin=True) as client:
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
