"""``insula keys``: make, list and revoke the keys of an app."""

from typing import Annotated

import typer

from insula.cli.local import Target, connect
from insula.cli.options import App, Data, Json, perform, segment
from insula.cli.output import say, show, show_json, show_table

commands = typer.Typer(help="Make, list and revoke keys.", no_args_is_help=True)


@commands.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may read and nothing else.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="ISO 8601 time of its end.")
    ] = None,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, which happens this once."""
    body: dict[str, object] = {"name": name, "read_only": read_only}
    if expires is not None:
        body["expires_at"] = expires
    perform(_create(Target(data, app), body, as_json))


async def _create(target: Target, body: dict[str, object], as_json: bool) -> None:
    async with connect(target) as client:
        made = await client.call("POST", "keys", body)
    if as_json:
        show_json(made)
        return
    show(f"id  {made['id']}\nkey {made['key']}")
    say("The key is not shown again.")


@commands.command("list")
def list_keys(data: Data = None, app: App = None, as_json: Json = False) -> None:
    """List the keys of the app, without their secrets."""
    perform(_list(Target(data, app), as_json))


async def _list(target: Target, as_json: bool) -> None:
    async with connect(target) as client:
        keys = await client.call("GET", "keys", query={"take": 100})
    if as_json:
        show_json(keys)
        return
    rows = (
        (
            key["id"],
            key["name"],
            "read" if key.get("read_only") else "read and write",
            key.get("last_used_at"),
            key.get("expires_at"),
            "revoked" if key.get("revoked_at") else "",
        )
        for key in keys
    )
    show_table(("ID", "NAME", "MAY", "LAST USED", "EXPIRES", ""), rows, "There are no keys.")


@commands.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.")],
    data: Data = None,
    app: App = None,
) -> None:
    """End a key, at once."""
    perform(_revoke(Target(data, app), key_id))


async def _revoke(target: Target, key_id: str) -> None:
    async with connect(target) as client:
        await client.call("DELETE", f"keys/{segment(key_id)}")
    say(f"{key_id} is revoked.")
