"""The figures of runs for Prometheus: how many, how they ended, and how long a cancel took."""

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Gauge = Callable[[], float]

_MINUTE = 60
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class RunMetrics:
    """What is counted where it happens."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry if registry is not None else CollectorRegistry()
        self.started = Counter(
            "insula_runs_started",
            "Runs that began to execute here, those gone on with after an interruption included.",
            registry=registry,
        )
        self.ended = Counter(
            "insula_runs_ended", "Runs that ended here.", ("status",), registry=registry
        )
        self.erased = Counter(
            "insula_runs_erased", "Runs whose data this process erased.", registry=registry
        )
        self.erased_lately = Lately()
        self.fenced = Counter(
            "insula_runs_fenced",
            "Runs dropped here without an end, because they are another node's by now.",
            registry=registry,
        )
        self.lease_lost = Counter(
            "insula_lease_lost",
            "Times this node had lost its lease, and took another.",
            registry=registry,
        )
        self.given_up = Counter(
            "insula_runs_given_up",
            "Runs that failed because nothing could be stored for too long.",
            registry=registry,
        )
        self.cancel_seconds = Histogram(
            "insula_run_cancel_seconds",
            "From the request to cancel one run until everything of it had stopped.",
            buckets=_SECONDS,
            registry=registry,
        )

    def note_erased(self, number: int) -> None:
        """Count runs whose data is gone."""
        self.erased.inc(number)
        self.erased_lately.note(number)


class Lately:
    """How much of something there was a second, over the last minute."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def note(self, number: int) -> None:
        """Count some more."""
        second = int(time.monotonic())
        self._counts[second] = self._counts.get(second, 0) + number
        for old in [each for each in self._counts if each <= second - _MINUTE]:
            del self._counts[old]

    def a_second(self) -> float:
        """Return the rate."""
        since = int(time.monotonic()) - _MINUTE
        return sum(n for second, n in self._counts.items() if second > since) / _MINUTE


class Gauges(Collector):
    """Figures that are read when they are asked for."""

    def __init__(self, gauges: dict[str, tuple[str, Gauge]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read them all."""
        for name, (words, read) in self._gauges.items():
            yield GaugeMetricFamily(name, words, value=read())
