"""The runs that this process executes: what can be asked of one, and how many there are."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from insula.engine.graph import Plan
from insula.engine.ports import Ports
from insula.engine.state import RunState
from insula.errors import TooMany
from insula.journal.log import RunLog
from insula.kit.json import Raw
from insula.runs.rows import RunRow
from insula.workflows.resolve import Runnable


@dataclass(slots=True)
class LiveRun:
    """A run in this process, from its start to the moment when its end is stored.

    ``finished`` resolves then; ``fenced`` says that the run went to another process instead.
    """

    row: RunRow
    runnable: Runnable
    plan: Plan
    state: RunState
    ports: Ports
    log: RunLog
    input: Raw
    forced: frozenset[str]
    finished: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    deadline: asyncio.TimerHandle | None = None
    entered: bool = False
    ending: bool = False
    stopping: bool = False
    fenced: bool = False
    chargeable: bool = True
    """Whether it takes a place of its own; a child runs in its parent's."""

    def stop(self, kind: Literal["cancel", "deadline", "shutdown"]) -> None:
        """Stop the run's task, once; what has begun to end is left to end by itself."""
        if self.stopping or self.ending or self.finished.done():
            return
        self.stopping = True
        self.ports.stop.kind = kind
        # A task that is cancelled before its first step would never run: it looks at `stopping`.
        if self.entered and self.task is not None:
            self.task.cancel()


@dataclass(slots=True)
class LiveRuns:
    """All of them, with counts for admission."""

    maximum: int
    share: float
    runs: dict[str, LiveRun] = field(default_factory=dict)
    _by_app: Counter[str] = field(default_factory=Counter)
    _by_caller: Counter[tuple[str, str]] = field(default_factory=Counter)
    _total: int = 0

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self.runs.values()))

    def get(self, run_id: str) -> LiveRun | None:
        """Return the run if this process executes it."""
        return self.runs.get(run_id)

    def has_room(self, app_id: str) -> bool:
        """Say whether one more run of this app may begin."""
        return self._total < self.maximum and self._by_app[app_id] < self._app_maximum()

    def admit(self, app_id: str, workflow_id: str, caller_limit: int | None) -> None:
        """Check that one more run may begin.

        Raises:
            TooMany: the installation, the app's share or the workflow's limit per caller is full.
        """
        if self._total >= self.maximum:
            raise TooMany(
                f"{self.maximum} runs are live, the limit (INSULA_RUNS_MAX). Try again, or start "
                "the run with background.",
                retry_after=1,
            )
        if self._by_app[app_id] >= self._app_maximum():
            raise TooMany(
                f"This app has {self._app_maximum()} live runs, its share (INSULA_RUNS_SHARE). "
                "Try again, or start the run with background.",
                retry_after=1,
            )
        if caller_limit is not None and self._by_caller[(workflow_id, app_id)] >= caller_limit:
            raise TooMany(
                f"The workflow's owner allows {caller_limit} live runs a caller. Try again later.",
                retry_after=1,
            )

    def add(self, live: LiveRun) -> None:
        """Take a run in."""
        self.runs[live.row.id] = live
        self._count(live, 1)

    def remove(self, live: LiveRun) -> None:
        """Let a run go whose task is over."""
        if self.runs.pop(live.row.id, None) is not None:
            self._count(live, -1)

    def _count(self, live: LiveRun, by: int) -> None:
        if not live.chargeable:
            return
        row = live.row
        self._total += by
        caller = (row.workflow_id, row.app_id)
        self._by_app[row.app_id] += by
        self._by_caller[caller] += by
        if not self._by_app[row.app_id]:
            del self._by_app[row.app_id]
        if not self._by_caller[caller]:
            del self._by_caller[caller]

    def _app_maximum(self) -> int:
        return max(1, int(self.maximum * self.share))
