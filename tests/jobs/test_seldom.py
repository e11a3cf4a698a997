"""What a flood of trouble leaves in the log: a line, and how often it happened."""

import pytest
from structlog.testing import capture_logs

from insula.jobs import seldom
from insula.jobs.seldom import AGAIN_AFTER, Seldom


def test_the_same_is_said_again_after_a_while_with_how_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(seldom.time, "monotonic", lambda: now)
    said = Seldom()
    with capture_logs() as logs:
        for _ in range(1_000):
            said.warn("signal.unreadable", bytes=1)
        said.warn("job.unreadable")
        now += AGAIN_AFTER
        said.warn("signal.unreadable", bytes=2)
    lines = [(log["event"], log["times"]) for log in logs]
    assert lines == [("signal.unreadable", 1), ("job.unreadable", 1), ("signal.unreadable", 1_000)]
