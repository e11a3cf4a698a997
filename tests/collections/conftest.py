"""The installation that the tests of this folder stand on, over each of the databases."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.postgres import PostgresServer
from tests.runs.platform import Platform, open_platform

DATABASES = ("sqlite", "postgres")


@pytest.fixture
def settings(request: pytest.FixtureRequest, kind: str) -> Iterator[dict[str, str]]:
    """The settings that name a fresh database of a kind."""
    if kind == "sqlite":
        yield {}
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create(request.getfixturevalue("postgres_template"))
    yield {"database_url": url}
    server.drop(url)


@pytest.fixture(params=DATABASES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which database it is."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def platform(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path, **settings) as opened:
        yield opened
