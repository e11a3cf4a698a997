"""How often a node looks for work in the rows, and how much of it it takes: less the more nodes
there are, because each of them looks.
"""

import random
from collections.abc import Sequence

SWEEP_SECONDS = 1.0
"""Between two sweeps of a node alone, or of one that has found more than it could take."""
SWEEPS_A_SECOND = 10
"""Of all nodes together, once there are more of them than that."""
JITTER = 0.1
APART = 0.1
"""Seconds between two sweeps at least, however often one is asked for: anyone may ask who reaches
the broker."""
_SPREAD_MOST = 2.0
_LEAST = 16
_random = random.SystemRandom()


def period(living: int, hurried: bool) -> float:
    """Return the seconds until the next sweep, a little different at each node."""
    seconds = SWEEP_SECONDS
    if not hurried:
        seconds = max(seconds, living / SWEEPS_A_SECOND)
    return seconds * _random.uniform(1 - JITTER, 1 + JITTER)


def spread(living: int) -> float:
    """Return how long to wait where all nodes were told at once to sweep: nothing where they are
    few."""
    most = min(_SPREAD_MOST, max(0.0, living / SWEEPS_A_SECOND - 1) / 10)
    return _random.uniform(0, most)


def wanted(free: int, begun: int, waiting: int) -> int:
    """Return how many runs to offer to a queue in which so many wait: twice what there is room for,
    or has begun since the last time."""
    return max(0, max(_LEAST, 2 * free, 2 * begun) - waiting)


def choose(found: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """Choose some blindly, so that nodes do not all try the same ones; in the order they have."""
    if len(found) <= most:
        return list(found)
    return [found[place] for place in sorted(_random.sample(range(len(found)), most))]
