"""How the demo speaks: plain lines in a pipe, and nothing that a terminal would obey."""

from io import StringIO

import pytest
from rich.console import Console

from insula.cli.demo.narration import Narrator
from insula.cli.event_stream import ServerEvent
from insula.cli.progress import LiveProgress, PlainProgress, RunProgress


def narrator(terminal: bool) -> tuple[Narrator, StringIO]:
    screen = StringIO()
    console = Console(file=screen, width=80, force_terminal=terminal, color_system=None)
    return Narrator(console), screen


def test_chapters_are_numbered() -> None:
    story, screen = narrator(terminal=False)
    story.chapter("One")
    story.say("told")
    story.chapter("Two")
    story.request("GET", "workflows")
    assert screen.getvalue() == "\n1  One\n   told\n\n2  Two\n   GET /apps/c/workflows\n"


def test_a_number_is_plain_in_a_pipe_and_big_on_a_terminal() -> None:
    story, screen = narrator(terminal=False)
    story.number(12, "ms", "until it stopped")
    assert screen.getvalue() == "\n   >>>  12 ms  until it stopped\n\n"
    story, screen = narrator(terminal=True)
    story.number(1234567890, "ms", "until it stopped")
    lines = screen.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[2].endswith(" ms")
    assert lines[3].endswith("until it stopped")


@pytest.mark.parametrize(("terminal", "shown"), [(True, LiveProgress), (False, PlainProgress)])
def test_progress_fits_where_it_is_shown(terminal: bool, shown: type) -> None:
    story, _ = narrator(terminal)
    assert isinstance(story.progress(RunProgress()), shown)


def test_what_strangers_named_cannot_move_the_cursor() -> None:
    story, screen = narrator(terminal=False)
    story.say("\x1b[2J")
    story.table(("STEP",), [("\x1b[2J",)])
    progress = RunProgress()
    step = {"key": "\x1b[2J", "status": "RUNNING", "start": 1}
    story.progress(progress).told(progress.apply(ServerEvent("step", step)))
    assert "\x1b" not in screen.getvalue()
