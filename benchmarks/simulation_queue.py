"""Runs that wait for a free node: hints through one stream, a sweep that finds what they miss, a
share of each node for each app. Places and durations are parameters; nothing here is measured.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from benchmarks.simulation_clock import Simulation, quantile, stream

Duration = Callable[[random.Random], float]


@dataclass(frozen=True)
class App:
    """Who sends runs: ``rate`` a second; with ``burst`` = (every, lasting, factor) in waves.

    During ``lasting`` of each ``every`` seconds the rate is ``factor`` times as high.
    """

    name: str
    rate: float
    burst: tuple[float, float, float] | None = None

    def rate_at(self, now: float) -> float:
        """Return the rate at a moment."""
        if self.burst is None:
            return self.rate
        every, lasting, factor = self.burst
        return self.rate * (factor if now % every < lasting else 1.0)


@dataclass(frozen=True)
class Fleet:
    """Equal nodes and how they take work. Times are seconds.

    ``fair`` off: no shares, and whoever sweeps takes the oldest first, as a plain queue would.
    ``chosen``: a sweep offers no more than so many, chosen blindly among the oldest (0: all).
    """

    nodes: int
    places: int
    share: float = 0.5
    hint_delay: float = 0.0015
    hint_lost: float = 0.0
    fetch: float = 0.0004
    look: float = 0.0005
    sweep_every: float = 1.0
    offered: int = 1_000
    chosen: int = 0
    fair: bool = True


@dataclass(eq=False, slots=True)
class _Run:
    app: str
    arrived: float
    service: float
    begun: bool = False


@dataclass(eq=False, slots=True)
class _Node:
    number: int
    free: int
    live: dict[str, int] = field(default_factory=dict)
    busy: bool = False
    waiting: "OrderedDict[str, deque[_Run]]" = field(default_factory=OrderedDict)


@dataclass
class Waits:
    """What was seen: waits by app, and the work that hints and sweeps made."""

    seconds: float
    waits: dict[str, list[float]]
    sojourns: list[float]
    in_system: float
    """Mean number of runs that waited or ran."""
    arrived: int
    ended: int
    dropped_hints: int
    useless_looks: int
    rows_swept: int

    def wait(self, share: float, *apps: str) -> float:
        """Return a quantile of the waits of some apps, or of all."""
        chosen = apps or tuple(self.waits)
        return quantile([wait for app in chosen for wait in self.waits.get(app, ())], share)

    @property
    def rate(self) -> float:
        """Return runs that ended a second."""
        return self.ended / self.seconds


class Queueing:
    """One simulated fleet under some apps' load."""

    def __init__(self, fleet: Fleet, apps: list[App], duration: Duration, seed: int) -> None:
        self._fleet, self._apps, self._duration = fleet, apps, duration
        self._time = Simulation()
        self._arrivals = {app.name: stream(seed, f"arrivals of {app.name}") for app in apps}
        self._services = stream(seed, "services")
        self._luck = stream(seed, "luck")
        self._nodes = [_Node(number, fleet.places) for number in range(fleet.nodes)]
        self._idle: OrderedDict[int, _Node] = OrderedDict((n.number, n) for n in self._nodes)
        self._hints: deque[_Run] = deque()
        self._pending: OrderedDict[_Run, None] = OrderedDict()
        self._share = max(1, int(fleet.places * fleet.share)) if fleet.fair else fleet.places
        self._seen = Waits(0.0, {app.name: [] for app in apps}, [], 0.0, 0, 0, 0, 0, 0)
        self._inside, self._area, self._since = 0, 0.0, 0.0

    def run(self, seconds: float) -> Waits:
        """Let the apps send for so long; return what was seen."""
        for app in self._apps:
            self._next(app)
        for node in self._nodes:
            phase = self._luck.random() * self._fleet.sweep_every
            self._time.after(phase, partial(self._sweep, node))
        self._time.run(seconds)
        self._count(0)
        self._seen.seconds = seconds
        self._seen.in_system = self._area / seconds
        return self._seen

    def _count(self, change: int) -> None:
        self._area += self._inside * (self._time.now - self._since)
        self._since = self._time.now
        self._inside += change

    def _next(self, app: App) -> None:
        """Plan an arrival by thinning, which holds for rates that change."""
        luck = self._arrivals[app.name]
        highest = app.rate * (max(1.0, app.burst[2]) if app.burst else 1.0)
        self._time.after(luck.expovariate(highest), partial(self._arrive, app, highest))

    def _arrive(self, app: App, highest: float) -> None:
        luck = self._arrivals[app.name]
        if luck.random() * highest <= app.rate_at(self._time.now):
            run = _Run(app.name, self._time.now, self._duration(self._services))
            self._seen.arrived += 1
            self._pending[run] = None
            self._count(+1)
            if self._luck.random() >= self._fleet.hint_lost:
                self._time.after(self._fleet.hint_delay, partial(self._hint, run))
        self._next(app)

    def _hint(self, run: _Run) -> None:
        self._hints.append(run)
        if self._idle:
            _, node = self._idle.popitem(last=False)
            self._pump(node)

    def _pump(self, node: _Node) -> None:
        """Let a node take the next run, from what it found by itself or else from the stream."""
        self._idle.pop(node.number, None)
        if node.busy or not node.free:
            return
        run = self._take(node)
        delay = self._fleet.look
        if run is None and self._hints:
            run, delay = self._hints.popleft(), self._fleet.fetch
        if run is None:
            self._idle[node.number] = node
            return
        node.busy = True
        self._time.after(delay, partial(self._try, node, run))

    def _try(self, node: _Node, run: _Run) -> None:
        node.busy = False
        if run.begun:
            self._seen.useless_looks += 1
        elif not self._admits(node, run.app):
            self._seen.dropped_hints += 1
        else:
            self._begin(node, run)
        self._pump(node)

    def _admits(self, node: _Node, app: str) -> bool:
        return node.free > 0 and node.live.get(app, 0) < self._share

    def _take(self, node: _Node) -> _Run | None:
        for app in list(node.waiting):
            if not self._admits(node, app):
                continue
            runs = node.waiting[app]
            run = runs.popleft()
            if runs:
                node.waiting.move_to_end(app)
            else:
                del node.waiting[app]
            return run
        return None

    def _begin(self, node: _Node, run: _Run) -> None:
        run.begun = True
        del self._pending[run]
        node.free -= 1
        node.live[run.app] = node.live.get(run.app, 0) + 1
        self._seen.waits[run.app].append(self._time.now - run.arrived)
        self._time.after(run.service, partial(self._end, node, run))

    def _end(self, node: _Node, run: _Run) -> None:
        node.free += 1
        node.live[run.app] -= 1
        self._count(-1)
        self._seen.ended += 1
        self._seen.sojourns.append(self._time.now - run.arrived)
        self._pump(node)

    def _sweep(self, node: _Node) -> None:
        """Read the oldest that wait, and offer them to this node's own queue."""
        self._time.after(self._fleet.sweep_every, partial(self._sweep, node))
        self._seen.rows_swept += min(self._fleet.offered, len(self._pending))
        if not node.free:
            return
        node.waiting.clear()
        oldest = list(islice(self._pending, self._fleet.offered))
        if self._fleet.chosen:
            oldest = self._luck.sample(oldest, min(len(oldest), self._fleet.chosen))
        for run in oldest:
            owner = run.app if self._fleet.fair else ""
            node.waiting.setdefault(owner, deque()).append(run)
        self._pump(node)
