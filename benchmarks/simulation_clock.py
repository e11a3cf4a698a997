"""Time that is only counted: a discrete-event loop, and a database whose cores are shared."""

import heapq
import random
from collections.abc import Callable, Sequence

Action = Callable[[], None]


class Simulation:
    """Runs actions in the order of their times; equal times in the order they were given."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._given = 0

    def after(self, delay: float, action: Action) -> None:
        """Have something happen in ``delay`` seconds."""
        self._given += 1
        heapq.heappush(self._heap, (self.now + delay, self._given, action))

    def run(self, until: float) -> None:
        """Let time pass up to a moment; what lies behind it does not happen."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = until


class SharedCores:
    """Cores that all work in progress shares equally: a database with a process a connection.

    Each piece of work advances by ``min(1, cores / pieces)``: its end is known in attained work,
    which grows alike for all, so that an arrival moves no other piece in the heap.
    """

    def __init__(self, simulation: Simulation, cores: float) -> None:
        self._simulation = simulation
        self._cores = cores
        self._attained = 0.0
        self._since = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._given = 0
        self._epoch = 0
        self.busy = 0.0
        """Core-seconds of work done."""

    def submit(self, work: float, done: Action) -> None:
        """Begin a piece of ``work`` core-seconds; ``done`` is called at its end."""
        self._advance()
        self._given += 1
        heapq.heappush(self._heap, (self._attained + work, self._given, done))
        self._plan()

    def _speed(self) -> float:
        return min(1.0, self._cores / len(self._heap)) if self._heap else 0.0

    def _advance(self) -> None:
        passed = self._simulation.now - self._since
        self._since = self._simulation.now
        gained = passed * self._speed()
        self._attained += gained
        self.busy += gained * len(self._heap)

    def _plan(self) -> None:
        self._epoch += 1
        if self._heap:
            epoch = self._epoch
            left = max(0.0, self._heap[0][0] - self._attained) / self._speed()
            self._simulation.after(left, lambda: self._finish(epoch))

    def _finish(self, epoch: int) -> None:
        if epoch != self._epoch:
            return  # something arrived or ended since this was planned
        self._advance()
        end, _, done = heapq.heappop(self._heap)
        self._attained = max(self._attained, end)
        self._plan()
        done()


def stream(seed: int, name: str) -> random.Random:
    """Return random numbers of their own for one purpose, so that purposes do not disturb."""
    return random.Random(f"{seed}/{name}")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
