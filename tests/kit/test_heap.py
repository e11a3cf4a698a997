"""The collector of garbage: what was loaded is left alone, what is dropped later is found."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from insula.kit import heap


class Cycle:
    """Something that only the collector can find."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_is_loaded_is_kept_and_what_is_dropped_goes() -> None:
    Cycle()  # it goes before the rest is frozen
    loaded = Cycle()
    heap.freeze_loaded()
    assert not any(isinstance(one, Cycle) for one in gc.get_objects())
    assert gc.get_freeze_count() > 1_000
    dropped = weakref.ref(Cycle())
    assert dropped() is not None
    rubbish = [[] for _ in range(gc.get_threshold()[0] + 1)]  # enough for it to look by itself
    assert dropped() is None
    assert loaded.own is loaded
    assert rubbish


@pytest.mark.usefixtures("collector")
def test_while_a_program_is_loaded_hardly_anything_is_looked_at() -> None:
    heap.relax_collector()
    before = gc.get_stats()[0]["collections"]
    loaded = [[] for _ in range(50_000)]
    assert gc.get_stats()[0]["collections"] - before <= 1
    assert loaded
