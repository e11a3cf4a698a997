"""Tuning of the garbage collector: while a program is loaded, and once it serves."""

import gc

_YOUNG, _MIDDLE, _OLD = 2_000, 50, 100
"""Objects more than before, and then collections, after which each generation is looked at."""
_LOADING = 100_000
"""The first of the three while a program is loaded: all of it stays."""


def relax_collector() -> None:
    """Hardly look for garbage from now on: a quarter of the start would go into it."""
    gc.set_threshold(_LOADING, _MIDDLE, _OLD)


def freeze_loaded() -> None:
    """Leave what was loaded until now to live as long as the process, and collect less often.

    Left to the collector, each full collection walks it all: answers of 50 ms in every hundred
    under load, 7 ms without. A run makes thousands of objects, nearly none of them in cycles: with
    the thresholds of the interpreter, made for scripts, a twentieth of the processor's time went
    into looking at them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
