"""A server in this process: started for one command, or until it is told to stop."""

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from insula.cli import hosting, serve
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.hosting import data_folder, hosted, settings_for, url_of
from insula.cli.kept_keys import KeptApp, Server, keep, write_server
from insula.cli.signals import Signals
from insula.errors import Unavailable
from insula.settings import Settings
from insula.storage.postgres_address import DatabaseAway

from .conftest import Invoke
from .fake_server import Answer, FakeServer


class FakeInsula:
    """Listens where the fake server does, until it is told to stop."""

    def __init__(self, port: int | None) -> None:
        self.port = port
        self.hurry = asyncio.Event()

    async def serve(
        self, host: str, port: int, ready: Callable[[int], None], stop: asyncio.Event
    ) -> None:
        if self.port is None:
            return
        ready(self.port)
        await stop.wait()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> list[Settings]:
    """The composition root leads to the fake server; tells with which settings it was opened."""
    for name in ("INSULA_URL", "INSULA_KEY", "INSULA_ADMIN_KEY"):
        monkeypatch.delenv(name)
    given: list[Settings] = []

    @asynccontextmanager
    async def open_insula(
        settings: Settings, *, only_asked: bool = False
    ) -> AsyncIterator[FakeInsula]:
        given.append(settings)
        # As the real one does: an error that comes through is wrapped by a task group.
        async with asyncio.TaskGroup():
            yield FakeInsula(int(server.url.rpartition(":")[2]))

    monkeypatch.setattr(hosting, "open_insula", open_insula)
    return given


def test_a_command_brings_its_own_server(
    opened: list[Settings], server: FakeServer, invoke: Invoke, tmp_path: Path
) -> None:
    keep(tmp_path, KeptApp("app_1", "Acme", "ins_acme"))
    server.on("GET", "/apps/c/workflows", Answer([]))
    assert invoke("workflows", "list", "--data", str(tmp_path)).code == ExitCode.OK
    (settings,) = opened
    assert settings.data_dir == tmp_path
    assert (settings.host, settings.port) == ("127.0.0.1", 0)
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value().startswith("insadm_")
    assert invoke("runs", "list", "--data", str(tmp_path)).code == ExitCode.NOT_FOUND


def test_a_background_run_without_a_server_says_when_it_goes_on(
    opened: list[Settings], server: FakeServer, invoke: Invoke, tmp_path: Path
) -> None:
    keep(tmp_path, KeptApp("app_1", "Acme", "ins_acme"))
    server.on("POST", "/apps/c/workflows/work_1/runs", Answer({"id": "run_1"}))
    outcome = invoke("run", "work_1", "--background", "--data", str(tmp_path))
    assert outcome.out == "run_1\n"
    assert "begins when one does" in outcome.err
    assert "insula serve" in outcome.err


def test_watching_without_a_server_does_not_wait_for_a_run_that_nobody_executes(
    opened: list[Settings], server: FakeServer, invoke: Invoke, tmp_path: Path
) -> None:
    keep(tmp_path, KeptApp("app_1", "Acme", "ins_acme"))
    run = {"id": "run_1", "status": "RUNNING", "started_at": "2026-01-31T12:00:00.000Z"}
    server.on("GET", "/apps/c/workflows/work_1/runs/run_1", Answer(run))
    outcome = invoke("runs", "watch", "work_1", "run_1", "--data", str(tmp_path))
    assert outcome.code == ExitCode.UNREACHABLE
    assert "The run is RUNNING, and no server holds the folder" in outcome.err


def test_serve_announces_itself_and_stops_on_a_signal(
    opened: list[Settings], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[Server] = []

    def announce(data: Path, written: Server) -> None:
        write_server(data, written)
        announced.append(written)
        # Handled when `serve` next waits, by when it has said how to handle it.
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(serve, "write_server", announce)
    outcome = invoke("serve", "--port", "0", "--data", str(tmp_path / "data"))
    assert outcome.code == ExitCode.OK
    assert [written.pid for written in announced] == [os.getpid()]
    assert f"at {announced[0].address}" in outcome.err
    assert not (tmp_path / "data" / "server.json").exists()


async def test_a_server_that_ends_at_once_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def ending(settings: Settings, **_: bool) -> AsyncIterator[FakeInsula]:
        yield FakeInsula(None)

    monkeypatch.setattr(hosting, "open_insula", ending)
    with pytest.raises(CommandFailed, match="ended at once"):
        async with hosted(tmp_path, None, None):
            pytest.fail("there is no server")


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_database_that_goes_away_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    @asynccontextmanager
    async def opening(settings: Settings, **_: bool) -> AsyncIterator[FakeInsula]:
        gone = Unavailable("The database cannot be reached.")
        raise ExceptionGroup("opening", [gone]) if grouped else gone
        yield FakeInsula(None)

    monkeypatch.setattr(hosting, "open_insula", opening)
    with pytest.raises(CommandFailed, match="cannot be reached") as caught:
        async with hosted(tmp_path, None, None):
            pytest.fail("there is no server")
    assert caught.value.code == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left"), "cannot be written to: No space left"),
        (DatabaseAway("Connection refused"), "Connection refused"),
    ],
)
async def test_a_full_disk_and_a_database_that_is_away_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    @asynccontextmanager
    async def opening(settings: Settings, **_: bool) -> AsyncIterator[FakeInsula]:
        raise error
        yield FakeInsula(None)

    monkeypatch.setattr(hosting, "open_insula", opening)
    with pytest.raises(CommandFailed, match=told) as caught:
        async with hosted(tmp_path, None, None):
            pytest.fail("there is no server")
    assert caught.value.code == ExitCode.UNREACHABLE


async def test_a_defect_while_it_starts_is_no_failure_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def opening(settings: Settings, **_: bool) -> AsyncIterator[FakeInsula]:
        raise ExceptionGroup("opening", [Unavailable("Not now"), LookupError("a defect")])
        yield FakeInsula(None)

    monkeypatch.setattr(hosting, "open_insula", opening)
    with pytest.raises(ExceptionGroup):
        async with hosted(tmp_path, None, None):
            pytest.fail("there is no server")


def test_bad_settings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_RUNS_MAX", "many")
    with pytest.raises(CommandFailed, match="INSULA_RUNS_MAX") as caught:
        settings_for(tmp_path)
    assert caught.value.code == ExitCode.USAGE


def test_where_a_client_on_this_machine_finds_it() -> None:
    assert url_of("0.0.0.0", 80) == url_of("::", 80) == "http://127.0.0.1:80"
    assert url_of("::1", 80) == "http://[::1]:80"
    assert url_of("10.0.0.1", 80) == "http://10.0.0.1:80"


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_DATA_DIR", "elsewhere")
    assert data_folder(None) == Path("elsewhere")
    assert data_folder(Path("here")) == Path("here")


def test_a_worker_needs_a_database_that_nodes_share(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSULA_ADMIN_KEY", raising=False)
    outcome = invoke("worker", "--data", str(tmp_path))
    assert outcome.code == ExitCode.USAGE
    assert "INSULA_DATABASE_URL" in outcome.err


async def test_a_cluster_without_a_database_to_share_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSULA_CLUSTER_URL", "nats://127.0.0.1:4222")
    with pytest.raises(CommandFailed, match="INSULA_DATABASE_URL"):
        async with hosted(tmp_path, None, 0):
            pytest.fail("there is no server")


async def test_what_cannot_carry_messages_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tables_url: str
) -> None:
    monkeypatch.setenv("INSULA_DATABASE_URL", tables_url)
    monkeypatch.setenv("INSULA_CLUSTER_URL", "postgresql://ada:s3cret@:x:y/")
    with pytest.raises(CommandFailed, match="INSULA_CLUSTER_URL") as raised:
        async with hosted(tmp_path, None, 0):
            pytest.fail("there is no server")
    assert "s3cret" not in str(raised.value)


async def test_the_first_signal_stops_and_the_second_hurries() -> None:
    hurried = asyncio.Event()
    serving = asyncio.create_task(hurried.wait())
    with Signals() as signals:
        signals.handle(hurried.set)
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.until_stopped(cast("asyncio.Task[None]", serving))
        assert not hurried.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 5)


@pytest.mark.parametrize("words", [("serve",), ("worker",), ("apps", "create", "Acme")])
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_that_cannot_be_made(
    invoke: Invoke, tmp_path: Path, words: tuple[str, ...], inside: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    folder = file / "data" if inside else file
    outcome = invoke(*words, "--data", str(folder))
    assert outcome.code == ExitCode.USAGE
    assert f"The data folder {folder} cannot be made: a file is in the way." in outcome.err


@pytest.mark.parametrize("words", [("serve", "--port", "0"), ("apps", "list")])
def test_a_file_that_is_no_database(
    invoke: Invoke, tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSULA_DATABASE_URL", raising=False)
    (tmp_path / "insula.db").write_text("A letter to nobody in particular.")
    outcome = invoke(*words, "--data", str(tmp_path))
    assert outcome.code == ExitCode.CONFLICT
    assert f"{tmp_path / 'insula.db'} is no SQLite file." in outcome.err


def test_a_database_that_is_damaged(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "insula.db").write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    outcome = invoke("apps", "list", "--data", str(tmp_path))
    assert outcome.code == ExitCode.FAILED
    assert "The database cannot be opened: " in outcome.err


def test_a_folder_in_which_nothing_can_be_made(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "admin.key").mkdir()
    outcome = invoke("serve", "--data", str(tmp_path))
    assert outcome.code == ExitCode.USAGE
    assert "can be neither read nor made" in outcome.err
    (tmp_path / "admin.key").rmdir()
    (tmp_path / "insula.lock").mkdir()
    outcome = invoke("serve", "--data", str(tmp_path))
    assert outcome.code == ExitCode.USAGE
    assert f"{tmp_path / 'insula.lock'}: Is a directory." in outcome.err
