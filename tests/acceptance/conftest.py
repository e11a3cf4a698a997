"""Servers for the tests of this folder: one process for a whole module, or one for a test."""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Clients, Served, clients
from tests.acceptance.loopback import Loopback, reserve, serving, url_of
from tests.databases import Lender

Serve = Callable[..., Served]

SOAK = bool(os.environ.get("INSULA_SOAK"))
"""Whether the long forms run."""


@pytest.fixture(scope="module")
def reserved() -> Iterator[socket.socket]:
    """The loopback server's port, known before anything starts."""
    with reserve() as sock:
        yield sock


@pytest.fixture(scope="module")
def settings(reserved: socket.socket) -> dict[str, str]:
    """The settings of the module's server; ``drip`` is a model provider on the loopback."""
    return {"INSULA_PROVIDER_DRIP_URL": f"{url_of(reserved)}/v1"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let modules choose the databases of their server: ``DATABASES = ("sqlite", "postgres")``;
    without it, SQLite."""
    if "served" in metafunc.fixturenames and hasattr(metafunc.module, "DATABASES"):
        metafunc.parametrize("served", metafunc.module.DATABASES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    request: pytest.FixtureRequest,
) -> Iterator[Served]:
    """The server of a module."""
    if getattr(request, "param", "sqlite") == "postgres":
        lender: Lender = request.getfixturevalue("lender")
        settings = {**settings, "INSULA_DATABASE_URL": lender.lend()}
    server = Served(tmp_path_factory.mktemp("served"), settings).start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def serve(tmp_path: Path, settings: dict[str, str]) -> Iterator[Serve]:
    """Start servers that are a test's own."""
    started: list[Served] = []

    def start(name: str = "data", **more: str) -> Served:
        server = Served(tmp_path / name, {**settings, **more})
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
async def loopback(reserved: socket.socket) -> AsyncIterator[Loopback]:
    async with serving(reserved) as server:
        yield server


@pytest.fixture
async def callers(served: Served) -> AsyncIterator[Clients]:
    async with clients(served) as made:
        yield made
