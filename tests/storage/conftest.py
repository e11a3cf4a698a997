from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from insula.storage.database import Database
from insula.storage.opening import open_database


@pytest.fixture
async def database(tmp_path: Path, database_url: str | None) -> AsyncIterator[Database]:
    opened = await open_database(database_url, tmp_path, "FULL")
    yield opened
    await opened.close()
