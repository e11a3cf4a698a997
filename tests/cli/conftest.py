"""A server that answers from a table, and the command line pointed at it."""

from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

from insula.cli.main import application

from .fake_server import FakeServer, serving

Invoke = Callable[..., "Outcome"]


class Outcome:
    """How a command ended: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with serving() as fake:
        monkeypatch.setenv("INSULA_URL", fake.url)
        monkeypatch.setenv("INSULA_KEY", "ins_test")
        monkeypatch.setenv("INSULA_ADMIN_KEY", "insadm_test")
        yield fake


@pytest.fixture
def invoke() -> Invoke:
    def run(*arguments: str, stdin: str | None = None) -> Outcome:
        result = CliRunner().invoke(application, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
