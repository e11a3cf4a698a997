"""How long is waited before a connection is opened again."""

import pytest

from insula.jobs import pauses
from insula.jobs.pauses import LASTED, PAUSES, Pauses


def test_only_what_held_for_a_while_is_opened_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(pauses.time, "monotonic", lambda: now)
    monkeypatch.setattr(pauses.random, "uniform", lambda least, most: most)
    waits = Pauses()
    first, longest = PAUSES
    assert [waits.next() for _ in range(3)] == [first, 2 * first, 4 * first]
    for _ in range(10):  # it opens, and breaks at once
        waits.up()
        last = waits.next()
    assert last == longest
    waits.up()
    now += LASTED
    assert waits.next() == first
    assert waits.next() == 2 * first
