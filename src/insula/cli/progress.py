"""How far a run is, folded from its stream, and shown while it goes on."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from insula.cli.event_stream import ServerEvent
from insula.cli.output import printable, say

_MARKS = {
    "COMPLETED": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "CANCELLED": ("■", "yellow"),
    "SKIPPED": ("–", "dim"),
}
_TAIL = 60


@dataclass(slots=True)
class StepProgress:
    """One step as the stream has told it so far; times are the server's Unix milliseconds."""

    key: str
    type: str = ""
    status: str = "RUNNING"
    start: int | None = None
    end: int | None = None
    text: str = ""
    error: str | None = None
    calls: int = 0
    kept: bool = False
    """Whether it comes from the run that this one replays."""

    def took(self, now: int) -> int | None:
        """Return how many milliseconds it has taken, up to ``now`` if it still runs."""
        if self.start is None:
            return None
        return max(0, (now if self.end is None else self.end) - self.start)


@dataclass(slots=True)
class RunProgress:
    """A run as its stream has told it so far."""

    run: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, StepProgress] = field(default_factory=dict)
    last_id: str | None = None
    _started: int = field(default=0, init=False)

    @property
    def run_id(self) -> str | None:
        """Return the run's id, once it is known."""
        found = self.run.get("id")
        return found if isinstance(found, str) else None

    def has_ended(self) -> bool:
        """Say whether the final status is known."""
        return self.run.get("status", "RUNNING") not in ("PENDING", "RUNNING")

    def apply(self, event: ServerEvent) -> StepProgress | None:
        """Fold an event in; return the step it was about."""
        self.last_id = event.id or self.last_id
        data = event.data
        if not isinstance(data, dict):
            return None
        if event.name == "run":
            self.run = data
            self._started = _moment(data.get("started_at"), self._started)
            for key, output in (data.get("output") or {}).items():
                self._step(str(key), output)
            return None
        if event.name in ("step", "chunk") and isinstance(data.get("key"), str):
            return self._step(data["key"], data, piece=event.name == "chunk")
        return None

    def _step(self, key: str, data: Any, piece: bool = False) -> StepProgress:
        step = self.steps.setdefault(key, StepProgress(key))
        if not isinstance(data, dict):
            return step
        if piece:
            output = data.get("output")
            message = output.get("message") if isinstance(output, dict) else None
            step.text = (step.text + str(message or ""))[-4 * _TAIL :]
            return step
        step.type = str(data.get("type") or step.type)
        step.status = str(data.get("status") or step.status)
        step.start = _milliseconds(data.get("start"), step.start)
        step.end = _milliseconds(data.get("end"), None)
        step.kept = step.start is not None and step.start < self._started
        step.error = data.get("error") if isinstance(data.get("error"), str) else None
        calls = data.get("calls")
        step.calls = len(calls) if isinstance(calls, list) else 0
        step.text = ""
        return step


def _milliseconds(value: Any, otherwise: int | None) -> int | None:
    return int(value) if isinstance(value, int | float) else otherwise


def _moment(value: Any, otherwise: int) -> int:
    """Return an ISO 8601 time in Unix milliseconds."""
    try:
        return round(datetime.fromisoformat(value).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        return otherwise


def milliseconds_between(start: Any, end: Any) -> int | None:
    """Return what passed between two ISO 8601 times, if they are that."""
    try:
        return round(
            (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000
        )
    except (TypeError, ValueError):
        return None


def duration(milliseconds: int | None) -> str:
    """Write a duration for people: ``3 ms``, ``2.4 s``, ``3 min 20 s``."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    return f"{minutes} min {seconds} s"


def describe(step: StepProgress) -> str:
    """Return what there is to say of a step besides its status: an error, or the newest text."""
    if step.error:
        return printable(step.error.splitlines()[0]) if step.error.strip() else ""
    if step.kept:
        return "kept, not run again"
    if step.text:
        return printable("…" + " ".join(step.text.split())[-_TAIL:])
    if not step.calls:
        return ""
    return "1 tool call" if step.calls == 1 else f"{step.calls} tool calls"


class LiveProgress:
    """A table that is redrawn while the run goes on."""

    def __init__(
        self,
        progress: RunProgress,
        clock: Callable[[], float] = time.time,
        console: Console | None = None,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._console = console or Console(stderr=True)
        self._spinner = Spinner("dots")

    def showing(self) -> AbstractContextManager[object]:
        """Return the block within which the table is on the screen."""
        return Live(get_renderable=self.render, console=self._console, refresh_per_second=10)

    def told(self, step: StepProgress | None) -> None:
        """Do nothing: the table is redrawn by its own clock."""

    def render(self) -> RenderableType:
        """Draw the table."""
        now = int(self._clock() * 1000)
        table = Table.grid(padding=(0, 2))
        for step in self._progress.steps.values():
            mark, style = _MARKS.get(step.status, ("", ""))
            table.add_row(
                Text(mark, style=style) if mark else self._spinner,
                Text(printable(step.key)),
                Text(printable(step.type), style="dim"),
                Text(duration(step.took(now)), justify="right"),
                Text(describe(step), style="dim", overflow="ellipsis", no_wrap=True),
            )
        run = self._progress.run
        head = f"{run.get('id', 'run')}  {run.get('status', 'PENDING')}"
        return Group(Text(printable(head), style="bold"), table)


class PlainProgress:
    """A line for each change of a step's status, for logs and pipes."""

    def __init__(self, write: Callable[[str], None] = say) -> None:
        self._write = write
        self._told: dict[str, str] = {}

    def showing(self) -> AbstractContextManager[object]:
        """Return a block that does nothing."""
        return nullcontext()

    def told(self, step: StepProgress | None) -> None:
        """Write a line if the step's status is a new one."""
        if step is None or self._told.get(step.key) == step.status:
            return
        if step.kept and step.end is None:
            return  # its beginning was told in the run that it is from
        self._told[step.key] = step.status
        took = duration(step.took(step.start or 0)) if step.end is not None else ""
        parts = (step.status.ljust(9), step.key, took, describe(step))
        self._write("  ".join(part for part in parts if part))


class NoProgress:
    """Nothing, for scripts."""

    def showing(self) -> AbstractContextManager[object]:
        """Return a block that does nothing."""
        return nullcontext()

    def told(self, step: StepProgress | None) -> None:
        """Say nothing."""


Progress = LiveProgress | PlainProgress | NoProgress


def progress_for(progress: RunProgress, quiet: bool) -> Progress:
    """Choose how to show progress: a table on a terminal, lines elsewhere, nothing if quiet."""
    if quiet:
        return NoProgress()
    return LiveProgress(progress) if sys.stderr.isatty() else PlainProgress()
