"""What a workflow's configuration has put into a run's input: the run uses it, and another app that
it is a run of does not see it."""

from collections.abc import Iterable, Sequence
from typing import Any

from insula.engine.inputs import Configured
from insula.kit import json
from insula.kit.json import Raw
from insula.runs.options import InputPath, change_options, options_of
from insula.runs.rows import RunRow


def note_configured(row: RunRow, configured: Sequence[Configured]) -> None:
    """Keep with a run of another app where its input is the workflow's own."""
    if configured and row.app_id != row.workflow_app_id:
        noted = tuple((one.path, one.connection) for one in configured)
        row.options = change_options(row, configured=noted)


def concealed(row: RunRow, viewer: str, *, closed: bool) -> tuple[InputPath, ...]:
    """Return what of a run's input an app is not shown: connections; of a closed workflow, all that
    is configured."""
    if viewer == row.workflow_app_id:
        return ()
    noted = options_of(row).configured
    return tuple(path for path, connection in noted if closed or connection)


def without(value: Raw, paths: Iterable[InputPath]) -> Raw:
    """Return an input without what stands at the paths."""
    changed: Any = json.decode(value)
    for path in paths:
        _take_out(changed, path)
    return json.raw(changed)


def _take_out(holder: Any, path: InputPath) -> None:
    for name in path[:-1]:
        if isinstance(name, int):
            holder = holder[name] if isinstance(holder, list) and name < len(holder) else None
        else:
            holder = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
