"""What the verbs of this folder work with, handed in by the composition root."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from insula.engine.events import RunEnded
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    ChildRequest,
    Files,
    Http,
    Limits,
    Models,
    NoFiles,
    NoServices,
    Ports,
    Sandbox,
    Services,
    Stop,
    Timeouts,
)
from insula.engine.state import RunState
from insula.files.resolve import FileInputs
from insula.jobs.queue import FairQueue
from insula.journal.journal import Journal
from insula.runs.children import Begin, Ended
from insula.runs.cluster import RUN, Cluster
from insula.runs.live import LiveRun, LiveRuns
from insula.runs.metrics import RunMetrics
from insula.runs.options import Outfit
from insula.runs.plans import Plans
from insula.runs.repository import NewRun
from insula.runs.rows import RunRow
from insula.storage.database import Database
from insula.storage.gather import Gathering
from insula.workflows.resolve import Resolver, Runnable

Equip = Callable[[Ports, str, str, int | None], Awaitable[Ports]]
"""Gives ports what the workflow's app keeps for its runs: which app that is, what the run's handles
of secrets are made from, and when it began, ``None`` if it begins now. Raises ``StepFailure``."""


PutOn = Callable[[Outfit, Ports], Awaitable[Ports]]
"""Gives a run with an outfit of its own (its option ``outfit``) other ports, once it is equipped.
Raises ``StepFailure``."""


AtEnd = Callable[[RunRow, RunState, RunEnded, Runnable | None], Callable[[Connection], None] | None]
"""Asked of every run that ends, with what it was started from, ``None`` if that is gone: returns
what is to be stored in the same commit. That must not fail, and its statements each hold by
themselves."""

AfterEnd = Callable[[RunRow], None]
"""Called with every run whose end this process has stored."""


async def _as_they_are(ports: Ports, app_id: str, seed: str, began: int | None) -> Ports:
    return ports


async def _no_outfit(worn: Outfit, ports: Ports) -> Ports:
    raise StepFailure("What this run is to be given is not known here", "not_available")


async def _no_children(parent: RunRow, request: ChildRequest, stop: Stop) -> LiveRun | Ended:
    raise StepFailure("Child runs cannot be started here", "not_available")


@dataclass(slots=True)
class RunServices:
    """Database, journal, ports and settings of runs, and the runs that are live here."""

    database: Database
    journal: Journal
    resolver: Resolver
    sandbox: Sandbox
    http: Http
    models: Models
    files: FileInputs
    live: LiveRuns
    queue: FairQueue
    group: asyncio.TaskGroup
    creating: Gathering[NewRun, None]
    """Inserts runs, those that arrive together with the same statements."""
    plans: Plans = field(default_factory=Plans)
    file_reader: Files = field(default_factory=NoFiles)
    """What steps read of files."""
    actions: Services = field(default_factory=NoServices)
    """What *service* steps call."""
    metrics: RunMetrics = field(default_factory=RunMetrics)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    run_timeout: float = 3600.0
    prices: Mapping[str, float] = field(default_factory=dict)
    max_attempts: int = 3
    max_iterations: int = 10_000
    max_output: int = 64 * 1024 * 1024
    retention: int = 30 * 24 * 3600
    rows_days: int = 400
    """Days until the row of an erased run goes."""
    queue_max: int = 10_000
    """Runs of one app that may wait to begin."""
    stop_within: float = 5.0
    """Seconds a cancelled run has to stop."""
    cluster: Cluster | None = None
    """What says something to the other nodes; ``None``: this one is alone."""
    patience: float = 60.0
    """Seconds that a run waits for something to be stored, or for a lease; then it fails."""
    stalled: bool = False
    """Whether nothing can be stored just now, as far as is known."""
    draining: bool = False
    only_asked: bool = False
    """Whether this process leaves what may wait to a server."""
    equip: Equip = _as_they_are
    outfit: PutOn = _no_outfit
    at_end: list[AtEnd] = field(default_factory=list)
    after_end: list[AfterEnd] = field(default_factory=list)
    begin_child: Begin = _no_children
    """Starts children; set by the composition root, because it needs these services itself."""

    @property
    def token(self) -> str:
        """What stands as owner in the rows of the runs that are executed here."""
        return self.journal.token

    @property
    def nodes(self) -> int:
        """How many nodes there are, this one counted, as far as is known."""
        return 1 if self.cluster is None else self.cluster.nodes

    @property
    def can_store(self) -> bool:
        """Whether runs may begin here: what they do can be stored, as far as is known."""
        return not self.stalled and not self.journal.lapsed()

    def room(self) -> None:
        """Say that there may be room for what waits."""
        self.queue.wake()
        if self.cluster is not None:
            self.cluster.jobs.wake(RUN)
