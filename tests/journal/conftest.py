from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.journal.rows import TOKEN

from insula.journal.journal import Journal
from insula.storage.sqlite import SqliteDatabase, open_sqlite


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = await open_sqlite(tmp_path / "insula.db")
    yield opened
    await opened.close()


@pytest.fixture
async def journal(database: SqliteDatabase) -> AsyncIterator[Journal]:
    opened = Journal(database, TOKEN)
    yield opened
    await opened.close()
