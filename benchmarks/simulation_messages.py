"""Cancels that are asked of a node which does not run the run: by request and reply, and by the
renewal of the owner's lease while the broker is away.
"""

import random
from dataclasses import dataclass

from benchmarks.simulation_clock import quantile, stream


@dataclass(frozen=True)
class Path:
    """What a cancel passes through. Times are seconds; each is the mean of an exponential part
    above a fixed half.
    """

    commit: float = 0.004
    """Storing that it was asked, and later the end: a group's commit each."""
    hop: float = 0.0005
    """A message from node to node through the broker."""
    stop: float = 0.008
    """Stopping everything the run does; the median of the kinds that are measured."""
    renewed_every: float = 2.0


@dataclass(frozen=True)
class Cancels:
    """What was seen of ``asked`` cancels."""

    asked: int
    elsewhere: int
    """Those asked of a node that was not the owner."""
    p50: float
    p99: float
    without_broker_p50: float
    without_broker_p99: float

    @property
    def messages(self) -> float:
        """Return messages a cancel: a request, its reply, a word to whoever follows the run."""
        return (2 * self.elsewhere + self.asked) / self.asked


def cancels(nodes: int, asked: int, path: Path, seed: int) -> Cancels:
    """Ask so many cancels, each of a node chosen blindly, as a proxy does."""
    luck = stream(seed, "cancels")
    elsewhere, with_broker, without = 0, [], []
    for _ in range(asked):
        stored = _took(luck, path.commit)
        stopped = _took(luck, path.stop) + _took(luck, path.commit)
        hops = 0.0
        waited = 0.0
        if luck.randrange(nodes):
            elsewhere += 1
            hops = _took(luck, path.hop) + _took(luck, path.hop)
            waited = luck.uniform(0, path.renewed_every)
        with_broker.append(stored + hops + stopped)
        without.append(stored + waited + stopped)
    return Cancels(
        asked,
        elsewhere,
        quantile(with_broker, 0.5),
        quantile(with_broker, 0.99),
        quantile(without, 0.5),
        quantile(without, 0.99),
    )


def _took(luck: random.Random, mean: float) -> float:
    return mean / 2 + luck.expovariate(2 / mean)
