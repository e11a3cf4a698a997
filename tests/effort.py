"""What work costs the processor, in a unit that every machine has: a fixed piece of plain work.

For work whose cost must not explode with what strangers send; speeds are measured in benchmarks.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


def _floor() -> float:
    """The seconds of about a hundredth of a second's work; the least of some attempts."""
    tried = []
    for _ in range(5):
        began = time.process_time()
        sum(number % 7 for number in range(100_000))
        tried.append(time.process_time() - began)
    return min(tried)


@contextmanager
def costing_at_most(floors: float) -> Iterator[None]:
    """Fail if the block costs more than so many floors.

    The collector of garbage rests meanwhile: it looks at what all earlier tests have left.
    """
    floor = _floor()
    collects = gc.isenabled()
    gc.disable()
    try:
        began = time.process_time()
        yield
        cost = (time.process_time() - began) / floor
    finally:
        if collects:
            gc.enable()
    assert cost <= floors, f"it costs {cost:.0f} floors, more than {floors:.0f}"
