"""The runs that this process executes: what can be asked of one, and how many there are."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
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


@dataclass(slots=True, eq=False)
class Place:
    """A place among the live runs, from the moment a run is admitted until it is over.

    ``kept``: a live run holds it now, and gives it back itself.
    """

    runs: "LiveRuns"
    app_id: str
    workflow_id: str
    kept: bool = False
    released: bool = False

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        if not self.kept:
            self.release()

    def release(self) -> None:
        """Give the place back, once."""
        if not self.released:
            self.released = True
            self.runs.count(self, -1)


@dataclass(slots=True, eq=False)
class LiveRun:
    """A run in this process, from just before its row is stored to when its end is stored.

    ``finished`` resolves then; ``fenced`` says that this process did not write the end: the run
    went to another, or waits for the next start, or was never stored.
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
    end_below: Callable[[], Awaitable[None]] | None = None
    """Of a run that was taken over with children that had not ended: ends those that it has not
    come to again. A run that does not complete does this before its own end."""
    place: Place | None = None
    """A child has none: it runs in its parent's."""
    task: asyncio.Task[None] | None = None
    deadline: asyncio.TimerHandle | None = None
    entered: bool = False
    ending: bool = False
    stopping: bool = False
    fenced: bool = False

    def stop(
        self, kind: Literal["cancel", "deadline", "storage", "shutdown"], words: str = ""
    ) -> None:
        """Stop the run's task, once; what has begun to end is left to end by itself."""
        if self.stopping or self.ending or self.finished.done():
            return
        self.stopping = True
        self.ports.stop.kind = kind
        self.ports.stop.words = words
        # A task that is cancelled before its first step would never run: it looks at `stopping`.
        if self.entered and self.task is not None:
            self.task.cancel()


def app_is_full(maximum: int) -> TooMany:
    """Make the refusal of an app that has all the live runs it may have, at all nodes together."""
    return TooMany(
        f"This app has {maximum} live runs, the limit (INSULA_APP_RUNS_MAX). Try again, or start "
        "the run with background.",
        retry_after=1,
    )


@dataclass(slots=True)
class LiveRuns:
    """All of them, with counts for admission."""

    maximum: int
    share: float
    app_maximum: int | None = None
    """Live runs of one app at all nodes together; counted where runs are stored."""
    runs: dict[str, LiveRun] = field(default_factory=dict)
    begun: int = 0
    """Runs that waited and have begun here since ``take_begun``."""
    _by_app: Counter[str] = field(default_factory=Counter)
    _by_caller: Counter[tuple[str, str]] = field(default_factory=Counter)
    _total: int = 0
    _left_at: float = float("-inf")
    """When the last one went, by the monotonic clock."""
    _full: set[str] = field(default_factory=set)
    """Apps that had ``app_maximum`` live runs a moment ago."""
    _taken: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self.runs.values()))

    def get(self, run_id: str) -> LiveRun | None:
        """Return the run if this process executes it."""
        return self.runs.get(run_id)

    def were_any(self, seconds: float) -> bool:
        """Say whether any run is live, or was within so many seconds."""
        return bool(self.runs) or time.monotonic() - self._left_at < seconds

    def is_full(self) -> bool:
        """Say whether no run of any app may begin."""
        return self._total >= self.maximum

    def has_room(self, app_id: str) -> bool:
        """Say whether one more run of this app may begin."""
        return self._total < self.maximum and self._by_app[app_id] < self._app_maximum()

    def may_begin(self, app_id: str) -> bool:
        """Say whether one more run of this app may begin, as far as is known of other nodes."""
        return app_id not in self._full and self.has_room(app_id)

    def free(self) -> int:
        """Return how many runs there is room for."""
        return max(0, self.maximum - self._total)

    def take_begun(self) -> int:
        """Return how many runs that waited have begun here, and count anew."""
        begun, self.begun = self.begun, 0
        return begun

    def held(self, app_id: str) -> int:
        """Return how many places an app holds, those of single steps among them."""
        return self._by_app.get(app_id, 0)

    def fill(self, app_id: str) -> None:
        """Remember that an app has as many live runs as it may have, until one of them ends here,
        or ``reconsider``."""
        self._full.add(app_id)

    def reconsider(self) -> None:
        """Ask the database again what apps may have: runs may have ended at other nodes."""
        self._full.clear()

    def allows_caller(self, app_id: str, workflow_id: str, limit: int | None) -> bool:
        """Say whether the workflow's owner lets this app have one more run of it."""
        return limit is None or self._by_caller[(workflow_id, app_id)] < limit

    def admit(self, app_id: str, workflow_id: str, caller_limit: int | None) -> Place:
        """Take a place for one more run.

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
        if app_id in self._full and self.app_maximum is not None:
            raise app_is_full(self.app_maximum)
        if not self.allows_caller(app_id, workflow_id, caller_limit):
            raise TooMany(
                f"The workflow's owner allows {caller_limit} live runs a caller. Try again later.",
                retry_after=1,
            )
        return self.take_place(app_id, workflow_id)

    def take_place(self, app_id: str, workflow_id: str) -> Place:
        """Take a place whether there is room or not, for a run that was admitted before."""
        place = Place(self, app_id, workflow_id)
        self.count(place, 1)
        return place

    def add(self, live: LiveRun) -> None:
        """Take a run in; it keeps its place."""
        self.runs[live.row.id] = live
        if live.place is not None:
            live.place.kept = True

    def remove(self, live: LiveRun) -> None:
        """Let a run go that is over, and its place with it."""
        if self.runs.get(live.row.id) is live:
            del self.runs[live.row.id]
            self._left_at = time.monotonic()
        if live.place is not None:
            live.place.release()

    @asynccontextmanager
    async def alone(self, run_id: str) -> AsyncIterator[None]:
        """Let nobody else of this process take over the same run meanwhile.

        Who comes second looks again: the run may be live by then. Held from above downwards only.
        """
        while (other := self._taken.get(run_id)) is not None:
            await asyncio.shield(other)
        mine = self._taken[run_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._taken[run_id]
            mine.set_result(None)

    def is_taken(self, run_id: str) -> bool:
        """Say whether somebody here is taking the run over just now."""
        return run_id in self._taken

    def count(self, place: Place, by: int) -> None:
        """Count a place in or out; for places alone."""
        caller = (place.workflow_id, place.app_id)
        self._total += by
        self._by_app[place.app_id] += by
        self._by_caller[caller] += by
        if by < 0:
            self._full.discard(place.app_id)
        if not self._by_app[place.app_id]:
            del self._by_app[place.app_id]
        if not self._by_caller[caller]:
            del self._by_caller[caller]

    def _app_maximum(self) -> int:
        return max(1, int(self.maximum * self.share))
