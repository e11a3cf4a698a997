"""``insula demo`` as a process: the whole story, an interrupt, and a death in the midst."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.harness import environment
from tests.acceptance.processes import alive, family, wait_until

DEADLINE = 120.0


class Demo:
    """The process, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process = process
        self.output = output

    @property
    def text(self) -> str:
        return self.output.read_text("utf-8", "replace")

    def until(self, words: str) -> None:
        wait_until(
            lambda: words in self.text or self.process.poll() is not None, DEADLINE, self.text
        )
        assert words in self.text, self.text

    def server(self) -> int:
        self.until("answers at http://127.0.0.1:")
        found = re.search(r"process (\d+)", self.text)
        assert found
        return int(found[1])


@contextmanager
def demo(folder: Path) -> Iterator[Demo]:
    """Run the demo with its temporary folder in this one; kill it if the test does not end it."""
    temporary, output = folder / "temporary", folder / "output"
    temporary.mkdir()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "insula", "demo"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment({"TMPDIR": str(temporary), "INSULA_PORT": "nonsense"}),
            start_new_session=True,
        )
    try:
        yield Demo(process, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_it_tells_the_whole_story(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        server = running.server()
        assert running.process.wait(DEADLINE) == 0, running.text
        story = running.text
    for number in range(1, 8):
        assert re.search(rf"^{number}  ", story, re.MULTILINE), story
    assert "“Triage” of Acme, version 1" in story
    assert story.count('Result: {"urgent":true,') == 2
    took = re.search(r">>>  (\d+) ms  from the request until all had stopped", story)
    assert took, story
    assert int(took[1]) < 5_000
    receipt = story[took.end() : story.index("The proof")]
    for key in ("history", "duplicates", "archive", "draft", "orders", "in a child run: ask"):
        assert key in receipt
    assert "0 requests accepted, 0 connections still open" in story
    assert story.count("kept, not run again") == 2
    assert "\x1b" not in story
    assert not alive(server)
    assert not os.listdir(tmp_path / "temporary")


def test_an_interrupt_ends_everything(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        server = running.server()
        workers = family(server)
        running.until("RUNNING    history")
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(DEADLINE) == 130, running.text
        assert "Interrupted." in running.text
        assert not [pid for pid in (server, *workers) if alive(pid)]
        assert not os.listdir(tmp_path / "temporary")


def test_its_death_is_the_servers_death(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        server = running.server()
        workers = family(server)
        running.process.kill()
        wait_until(lambda: not any(map(alive, (server, *workers))), 10, "the server's death")
