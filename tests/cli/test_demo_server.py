"""The demo's server when things go wrong: its log is shown, and nothing is left behind."""

import os
import sys
from pathlib import Path

import pytest

from insula.cli.demo.server import Server, serving
from insula.cli.failures import CommandFailed, ExitCode

from .conftest import Invoke


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is started in the server's place."""
    path = tmp_path / "program"
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return path


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


def left(program: Path) -> list[str]:
    return [path.name for path in program.parent.iterdir() if path != program]


async def test_a_server_that_does_not_start_shows_its_log(program: Path) -> None:
    write(program, "seq 1 40; echo 'The port is taken.' >&2; exit 7")
    with pytest.raises(CommandFailed) as caught:
        async with serving("127.0.0.1:1"):
            raise AssertionError
    assert caught.value.code == ExitCode.FAILED
    assert "exit code 7" in caught.value.message
    assert caught.value.message.endswith("  40\n  The port is taken.")
    assert "\n  5\n" not in caught.value.message
    assert left(program) == []


def test_the_command_fails_with_it(program: Path, invoke: Invoke) -> None:
    write(program, "echo 'The disk is full.'; exit 3")
    told = invoke("demo")
    assert told.code == ExitCode.FAILED
    assert "exit code 3" in told.err
    assert "  The disk is full.\n" in told.err
    assert "insula doctor" in told.err


_ANNOUNCES = """
while [ "$1" != --data ]; do shift; done
mkdir -p "$2"
echo "allow $INSULA_EGRESS_ALLOW, retention $INSULA_RETENTION"
echo '{"pid": 1, "address": "http://127.0.0.1:9"}' > "$2/draft"
mv "$2/draft" "$2/server.json"
exec sleep 60
"""


async def test_a_failure_in_the_midst_ends_the_server(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(program, _ANNOUNCES)
    monkeypatch.setenv("INSULA_RETENTION", "0")
    seen: list[Server] = []

    async def fail() -> None:
        async with serving("127.0.0.1:1") as server:
            seen.append(server)
            raise CommandFailed("It went wrong.", ExitCode.CONFLICT, "Try again.")

    with pytest.raises(CommandFailed) as caught:
        await fail()
    assert caught.value.code == ExitCode.CONFLICT
    assert caught.value.message.startswith("It went wrong.\n")
    assert caught.value.message.endswith("  allow 127.0.0.1:1, retention ")
    assert caught.value.hint == "Try again."
    assert seen[0].url == "http://127.0.0.1:9"
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0].pid, 0)
    assert left(program) == []


async def test_a_server_that_does_not_listen_is_killed(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(program, "trap '' TERM\necho here\nwhile :; do sleep 0.05; done")
    monkeypatch.setattr("insula.cli.demo.server._START_DEADLINE", 0.2)
    monkeypatch.setattr("insula.cli.demo.server._STOP_DEADLINE", 0.2)
    with pytest.raises(CommandFailed) as caught:
        async with serving("127.0.0.1:1"):
            raise AssertionError
    assert caught.value.code == ExitCode.UNREACHABLE
    assert caught.value.message.endswith("  here")
    assert left(program) == []
