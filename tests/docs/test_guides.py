"""The examples in the pages run: ``sh run`` blocks in order, one shell a page, in an empty folder.

A ``json output`` block holds what the block before it prints on stdout.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from .pages import ROOT, Block, blocks, pages

DEADLINE = 90
RUN = ("sh", "run")
OUTPUT = ("json", "output")
GUIDES = [page for page in pages() if any(block.words == RUN for block in blocks(page))]


def script(found: list[Block]) -> str:
    """Write one shell script in which each block's stdout goes into a file of its own."""
    lines = ["set -eu"]
    for number, block in enumerate(found):
        if block.words == RUN:
            lines += ["{", block.text.rstrip(), f"}} > out.{number}"]
    return "\n".join(lines) + "\n"


def run(text: str, folder: Path) -> None:
    """Run a script, and end whatever it left behind."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("INSULA_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / "err").open("w+") as errors:
        shell = subprocess.Popen(
            ["bash", "-c", text],
            cwd=folder,
            env={**known, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        try:
            code = shell.wait(DEADLINE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        errors.seek(0)
        assert code == 0, errors.read()


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    found = blocks(page)
    run(script(found), tmp_path)
    for number, block in enumerate(found):
        if block.words == OUTPUT:
            printed = (tmp_path / f"out.{number - 1}").read_text("utf-8")
            assert json.loads(printed) == json.loads(block.text)


def test_some_page_has_examples_that_run() -> None:
    assert ROOT / "docs" / "guides" / "getting-started.md" in GUIDES


def test_shown_json_is_json() -> None:
    for page in pages():
        for block in blocks(page):
            if block.words[:1] == ("json",):
                json.loads(block.text)
