"""The installation that the tests of this folder stand on, over each of the databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runs.platform import Platform, open_platform

DATABASES = ("sqlite", "postgres")


@pytest.fixture
def settings(request: pytest.FixtureRequest, kind: str) -> dict[str, str]:
    """The settings that name a database of a kind."""
    return {} if kind == "sqlite" else {"database_url": request.getfixturevalue("tables_url")}


@pytest.fixture(params=DATABASES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which database it is."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def platform(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path, **settings) as opened:
        yield opened
