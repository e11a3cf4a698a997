"""The installation that the tests of this folder stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runs.platform import Platform, open_platform


@pytest.fixture
async def platform(tmp_path: Path, database_url: str | None) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path, database_url=database_url) as opened:
        yield opened
