"""``insula retention``: what is due to be erased, and when."""

from typing import Any

import typer

from insula.cli.local import Target, connect
from insula.cli.options import App, Data, Json, perform
from insula.cli.output import show, show_json, show_table

commands = typer.Typer(help="Say what is due to be erased, and when.", no_args_is_help=True)


@commands.callback()
def retention() -> None:
    """Say what is due to be erased, and when."""


@commands.command("status")
def status(data: Data = None, app: App = None, as_json: Json = False) -> None:
    """Show how many of the app's runs are due now, and on each of the next 30 days."""
    perform(_status(Target(data, app), as_json))


async def _status(target: Target, as_json: bool) -> None:
    async with connect(target) as client:
        found = await client.call("GET", "retention")
    if as_json:
        show_json(found)
        return
    oldest = found.get("oldest_due_at")
    since = f", the oldest since {oldest}" if oldest else ""
    show(f"due now: {_number(found['due'])}{since}")
    show(f"erased:  {found['erased_per_second']:g} runs/s over the last minute")
    days = [day for day in found["days"] if day["count"] or day["capped"]]
    rows = ((day["date"], _number(day)) for day in days)
    show_table(("DAY", "RUNS"), rows, "Nothing falls due in the next 30 days.")


def _number(count: dict[str, Any]) -> str:
    return f"{'at least ' if count['capped'] else ''}{count['count']}"
