"""``insula apps``: with the admin key, of the environment or of a folder."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.cli import local
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.kept_keys import Server, find_key, write_server
from insula.storage.lock import SOCKET, FolderLock

from .conftest import Invoke
from .fake_server import Answer, FakeServer, serving

MADE = {"id": "app_1", "name": "Acme", "key": "ins_acme", "created_at": "2026-01-31T12:00:00.000Z"}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A data folder that a living server holds."""
    with FolderLock(tmp_path):
        yield tmp_path


def test_create_shows_the_key(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", "/apps", Answer(MADE))
    outcome = invoke("apps", "create", "Acme", "--json")
    assert json.loads(outcome.out) == {"app_id": "app_1", "name": "Acme", "key": "ins_acme"}
    assert server.asked[0].headers["authorization"] == "Bearer insadm_test"
    assert "INSULA_KEY" in invoke("apps", "create", "Acme").err


def test_a_folder_keeps_the_key_and_leads_to_its_server(
    server: FakeServer, invoke: Invoke, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INSULA_URL", "INSULA_KEY", "INSULA_ADMIN_KEY"):
        monkeypatch.delenv(name)
    write_server(held, Server(os.getpid(), server.url))
    server.on("POST", "/apps", Answer(MADE))
    server.on("GET", "/apps/c/workflows", Answer([]))
    assert invoke("apps", "create", "Acme", "--data", str(held)).code == ExitCode.OK
    assert find_key(held, "Acme") == "ins_acme"
    assert server.asked[0].headers["authorization"].startswith("Bearer insadm_")
    outcome = invoke("workflows", "list", "--data", str(held), "--app", "Acme")
    assert outcome.code == ExitCode.OK
    assert server.asked[1].headers["authorization"] == "Bearer ins_acme"


@pytest.mark.parametrize(
    "words", [("apps", "list"), ("apps", "delete", "app_1"), ("secrets", "rotate")]
)
def test_a_folder_that_is_misspelt_is_not_made(
    invoke: Invoke, tmp_path: Path, words: tuple[str, ...]
) -> None:
    outcome = invoke(*words, "--data", str(tmp_path / "dat"))
    assert outcome.code == ExitCode.USAGE
    assert "There is no folder" in outcome.err
    assert not (tmp_path / "dat").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_another_admin_key_than_the_servers(
    server: FakeServer, invoke: Invoke, status: int
) -> None:
    server.on("GET", "/apps", Answer({"status": status, "message": "Wrong."}, status=status))
    outcome = invoke("apps", "list")
    assert outcome.code == ExitCode.NOT_ALLOWED
    assert "Set INSULA_ADMIN_KEY to what the server has." in outcome.err
    assert "INSULA_KEY" not in outcome.err.replace("INSULA_ADMIN_KEY", "")


def test_a_folder_of_somebody_else_is_told_in_words(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "insula.lock"))

    monkeypatch.setenv("INSULA_KEY", "ins_acme")
    monkeypatch.setattr(local, "holder", refuse)
    outcome = invoke("workflows", "list", "--data", str(tmp_path))
    assert outcome.code == ExitCode.USAGE
    assert f"{tmp_path / 'insula.lock'}: Permission denied." in outcome.err
    assert "Run this as its owner." in outcome.err


def test_delete_forgets_the_kept_key(
    server: FakeServer, invoke: Invoke, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INSULA_URL", "INSULA_KEY", "INSULA_ADMIN_KEY"):
        monkeypatch.delenv(name)
    write_server(held, Server(os.getpid(), server.url))
    server.on("POST", "/apps", Answer(MADE))
    server.on("DELETE", "/apps/app_1", Answer(None))
    assert invoke("apps", "create", "Acme", "--data", str(held)).code == ExitCode.OK
    outcome = invoke("apps", "delete", "app_1", "--data", str(held))
    assert (outcome.code, outcome.out) == (ExitCode.OK, "app_1 is deleted.\n")
    with pytest.raises(CommandFailed):
        find_key(held, "Acme")
    assert invoke("apps", "delete", "../app_1", "--data", str(held)).code == ExitCode.USAGE


def test_a_folder_s_server_is_reached_through_its_socket(
    invoke: Invoke, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it listens besides: an address from which this machine does not reach it."""
    monkeypatch.chdir(held)  # a socket's address is short
    for name in ("INSULA_URL", "INSULA_KEY", "INSULA_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with serving(SOCKET) as server:
        write_server(held, Server(os.getpid(), "http://127.0.0.1:1"))
        server.on("GET", "/apps", Answer([MADE]))
        assert invoke("apps", "list", "--data", ".").code == ExitCode.OK
    assert server.asked[0].headers["authorization"].startswith("Bearer insadm_")


def test_a_folder_that_another_command_uses(
    invoke: Invoke, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WAIT_SECONDS", 0.1)
    outcome = invoke("apps", "list", "--data", str(held))
    assert outcome.code == ExitCode.CONFLICT
    assert "Another command" in outcome.err


def test_a_server_that_is_starting_is_waited_for(
    server: FakeServer, invoke: Invoke, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    real = local.read_server

    def read(data: Path) -> Server | None:
        looked.append(data)
        if len(looked) == 3:
            write_server(held, Server(os.getpid(), server.url))
        return real(data)

    monkeypatch.setattr(local, "read_server", read)
    server.on("GET", "/apps", Answer([MADE]))
    assert invoke("apps", "list", "--data", str(held)).code == ExitCode.OK
    assert len(looked) == 3


def test_without_a_server_or_a_key(
    server: FakeServer, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("INSULA_ADMIN_KEY")
    assert invoke("apps", "list").code == ExitCode.NOT_ALLOWED
    monkeypatch.delenv("INSULA_KEY")
    assert invoke("runs", "list").code == ExitCode.NOT_ALLOWED
    assert invoke("runs", "list", "--app", "Acme").code == ExitCode.USAGE
    assert invoke("runs", "list", "--data", str(tmp_path)).code == ExitCode.NOT_ALLOWED
    assert invoke("runs", "list", "--data", str(tmp_path / "absent")).code == ExitCode.USAGE
    monkeypatch.delenv("INSULA_URL")
    assert invoke("runs", "list").code == ExitCode.USAGE


def test_list(server: FakeServer, invoke: Invoke) -> None:
    server.on("GET", "/apps", Answer([MADE]))
    assert "Acme" in invoke("apps", "list").out
    assert json.loads(invoke("apps", "list", "--json").out) == [MADE]
