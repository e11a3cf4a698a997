"""A run as its stream tells it."""

from io import StringIO

import pytest
from rich.console import Console

from insula.cli.event_stream import ServerEvent
from insula.cli.progress import LiveProgress, PlainProgress, RunProgress, duration


def fold(*events: ServerEvent) -> RunProgress:
    progress = RunProgress()
    for event in events:
        progress.apply(event)
    return progress


def chunk(key: str, text: str) -> ServerEvent:
    output = {"provider": "mock", "model": "mock-1", "message": text}
    return ServerEvent("chunk", {"key": key, "status": "RUNNING", "output": output})


def step(key: str, status: str, **more: object) -> ServerEvent:
    return ServerEvent(
        "step", {"key": key, "type": "model", "status": status, "start": 1000, **more}
    )


def test_steps_chunks_and_the_end_are_folded() -> None:
    progress = fold(
        ServerEvent("run", {"id": "run_1", "status": "RUNNING", "output": {}}, "0"),
        step("write", "RUNNING"),
        chunk("write", "Hello "),
        chunk("write", "world"),
    )
    assert progress.steps["write"].text == "Hello world"
    assert not progress.has_ended()
    progress.apply(step("write", "COMPLETED", end=1500, calls=[{}, {}]))
    progress.apply(ServerEvent("run", {"id": "run_1", "status": "COMPLETED"}, "9"))
    assert progress.steps["write"].took(0) == 500
    assert progress.steps["write"].calls == 2
    assert progress.has_ended()
    assert (progress.run_id, progress.last_id) == ("run_1", "9")


def test_a_new_attempt_begins_with_empty_text() -> None:
    progress = fold(step("write", "RUNNING"), chunk("write", "old"), step("write", "RUNNING"))
    assert progress.steps["write"].text == ""


def test_a_stream_taken_up_later_begins_with_what_is_known() -> None:
    output = {"fetch": {"key": "fetch", "status": "COMPLETED", "start": 1, "end": 4}}
    progress = fold(ServerEvent("run", {"id": "run_1", "status": "RUNNING", "output": output}))
    assert progress.steps["fetch"].status == "COMPLETED"


def test_nonsense_does_no_harm() -> None:
    progress = fold(
        ServerEvent("run", ["no"]),
        ServerEvent("step", {"key": 3}),
        ServerEvent("chunk", {"key": "a", "output": "text"}),
        ServerEvent("step", {"key": "a", "start": "soon", "calls": 4, "error": {}}),
        ServerEvent("news", {"key": "b"}),
    )
    assert list(progress.steps) == ["a"]


def test_plain_progress_tells_each_status_once() -> None:
    lines: list[str] = []
    plain, progress = PlainProgress(lines.append), RunProgress()
    for event in (
        step("a", "RUNNING"),
        step("a", "RUNNING"),
        chunk("a", "x"),
        step("a", "FAILED", end=1250, error="No such\x1b[31m host\nmore"),
    ):
        plain.told(progress.apply(event))
    assert lines == ["RUNNING    a", "FAILED     a  250 ms  No such\ufffd[31m host"]


def test_what_a_replay_keeps_is_told_once_and_as_kept() -> None:
    lines: list[str] = []
    plain, progress = PlainProgress(lines.append), RunProgress()
    begun = {"id": "run_2", "status": "RUNNING", "started_at": "1970-01-01T00:00:01.500Z"}
    for event in (
        ServerEvent("run", begun),
        step("a", "RUNNING"),
        step("a", "COMPLETED", end=1003),
        step("b", "RUNNING", start=1500),
        step("b", "COMPLETED", start=1500, end=1501),
    ):
        plain.told(progress.apply(event))
    assert lines == [
        "COMPLETED  a  3 ms  kept, not run again",
        "RUNNING    b",
        "COMPLETED  b  1 ms",
    ]


@pytest.mark.parametrize("time", [None, 3, "soon", "9999-99-99T00:00:00Z"])
def test_a_start_that_is_no_time_keeps_nothing(time: object) -> None:
    begun = {"id": "run_1", "status": "RUNNING", "started_at": time}
    assert not fold(ServerEvent("run", begun), step("a", "RUNNING")).steps["a"].kept


def test_the_live_table_shows_steps_and_their_time() -> None:
    progress = fold(
        ServerEvent("run", {"id": "run_1", "status": "RUNNING"}),
        step("a", "COMPLETED", end=1003),
        step("b", "RUNNING"),
        chunk("b", "thinking"),
    )
    screen = StringIO()
    live = LiveProgress(progress, clock=lambda: 3.4)
    Console(file=screen, width=100).print(live.render())
    text = screen.getvalue()
    assert "run_1  RUNNING" in text
    assert "3 ms" in text
    assert "2.4 s" in text
    assert "…thinking" in text


def test_durations_are_for_people() -> None:
    assert [duration(ms) for ms in (None, 3, 2400, 200_000)] == ["", "3 ms", "2.4 s", "3 min 20 s"]
