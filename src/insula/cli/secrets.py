"""``insula secrets``: encrypting stored secrets anew, with the installation's admin key."""

from pathlib import Path

import typer

from insula.cli.local import Target, connect
from insula.cli.options import Data, Json, perform
from insula.cli.output import show, show_json

commands = typer.Typer(help="Keep stored secrets encrypted.", no_args_is_help=True)


@commands.callback()
def secrets() -> None:
    """Keep stored secrets encrypted."""


@commands.command("rotate")
def rotate(data: Data = None, as_json: Json = False) -> None:
    """Encrypt all stored secrets with the first key, without stopping anything."""
    perform(_rotate(data, as_json))


async def _rotate(data: Path | None, as_json: bool) -> None:
    async with connect(Target(data), admin=True) as client:
        done = await client.call("POST", "/secrets/rotate")
    if as_json:
        show_json(done)
        return
    show(f"{done['rotated']} secrets are encrypted with the key {done['key_id']} now.")
