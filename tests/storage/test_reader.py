from pathlib import Path

from insula.storage.dialect import driver
from insula.storage.reader import Readers
from insula.storage.sqlite_reader import SqliteSource


class TakenMeanwhile(list):  # type: ignore[type-arg]
    """As another thread leaves it that takes the last one after this one has looked."""

    def __bool__(self) -> bool:
        return True


async def test_the_last_connection_at_rest_may_be_taken_by_another_thread(tmp_path: Path) -> None:
    readers = Readers(SqliteSource(tmp_path / "a.db"), 1)
    readers._idle = TakenMeanwhile()
    assert await readers.read(lambda c: driver(c).execute("SELECT 1").fetchone()) == (1,)
    await readers.close()
