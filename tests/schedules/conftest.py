"""The installation that the tests of this folder stand on, over each of the databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runs.platform import Platform, open_platform


@pytest.fixture(params=["sqlite", "postgres"])
async def platform(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    given = {}
    if request.param == "postgres":
        given["database_url"] = request.getfixturevalue("tables_url")
    async with open_platform(tmp_path, **given) as opened:
        yield opened
