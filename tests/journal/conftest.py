from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.journal.rows import TOKEN

from insula.journal.journal import Journal
from insula.storage.database import Database
from insula.storage.opening import open_database


@pytest.fixture
async def database(tmp_path: Path, database_url: str | None) -> AsyncIterator[Database]:
    opened = await open_database(database_url, tmp_path, "FULL")
    yield opened
    await opened.close()


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    opened = Journal(database, TOKEN)
    opened.database_clock._settled_at = 0.0  # of a process that has run for some time
    yield opened
    await opened.close()
