"""The installation that the tests of this folder stand on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.apps.installation import Installation, installed


@pytest.fixture
async def insula(tmp_path: Path, database_url: str | None) -> AsyncIterator[Installation]:
    async with installed(tmp_path, database_url) as opened:
        yield opened
