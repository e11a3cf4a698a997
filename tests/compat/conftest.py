"""The installation whose answers are compared, over each of the databases: they are the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runs.platform import Platform, open_platform


@pytest.fixture(params=["sqlite", "postgres"])
async def platform(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    given = {}
    if request.param == "postgres":
        given["database_url"] = request.getfixturevalue("tables_url")
    async with open_platform(tmp_path, public_url="http://insula.test", **given) as opened:
        yield opened
