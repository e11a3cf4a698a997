"""Work on a thread: it says how far it is once a second, and ends when nobody waits."""

import asyncio
import threading

import pytest

from insula.cli.database.progress import Progress, Stopped, on_a_thread


def test_it_tells_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = Progress(clock=lambda: now)
    for number, moment in enumerate((0.1, 0.9, 1.0, 1.5, 2.1), 1):
        now = moment
        progress("runs", number * 1000)
    assert capsys.readouterr().err.splitlines() == ["runs: 3,000", "runs: 5,000"]


def test_a_script_is_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = Progress(quiet=True, clock=lambda: now)
    now = 5.0
    progress("runs", 1)
    assert capsys.readouterr().err == ""


async def test_work_that_nobody_waits_for_ends_before_the_cancel_does() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(progress: Progress) -> None:
        try:
            while True:
                progress("rows", 1)
                begun.set()
        except Stopped:
            ended.set()
            raise

    task = asyncio.create_task(on_a_thread(Progress(quiet=True), work))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
