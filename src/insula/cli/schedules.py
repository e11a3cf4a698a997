"""``insula schedules``: list what starts runs by the clock."""

from typing import Any

import typer

from insula.cli.local import Target, connect
from insula.cli.options import App, Data, Json, Page, Take, WorkflowFilter, perform
from insula.cli.output import show_json, show_table

commands = typer.Typer(help="List what starts runs by the clock.", no_args_is_help=True)


@commands.callback()
def schedules() -> None:
    """List what starts runs by the clock."""


@commands.command("list")
def list_schedules(
    workflow_id: WorkflowFilter = None,
    take: Take = 20,
    page: Page = 1,
    data: Data = None,
    app: App = None,
    as_json: Json = False,
) -> None:
    """List the app's schedules, the newest first, those of workflows' triggers included."""
    query = {"workflow_id": workflow_id, "take": take, "page": page}
    perform(_list(Target(data, app), query, as_json))


async def _list(target: Target, query: dict[str, str | int | None], as_json: bool) -> None:
    async with connect(target) as client:
        found = await client.call("GET", "schedules", query=query)
    if as_json:
        show_json(found)
        return
    rows = (
        (each["id"], each["workflow_id"], _times(each), each["next_at"], each["last_error"])
        for each in found
    )
    headings = ("SCHEDULE", "WORKFLOW", "WHEN", "NEXT", "ERROR")
    show_table(headings, rows, "There are no schedules.")


def _times(schedule: dict[str, Any]) -> str:
    if schedule.get("every"):
        return f"every {schedule['every']} s"
    if schedule.get("cron"):
        return f"{schedule['cron']} {schedule['timezone']}"
    return f"once at {schedule['at']}"
