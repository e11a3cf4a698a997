"""The log goes into the file beside the writer, and nothing of it is left to whoever commits."""

import asyncio
import threading
from pathlib import Path

from sqlalchemy import Connection, text

from insula.storage.sqlite import SqliteDatabase, open_sqlite
from insula.storage.sqlite_checkpoint import Checkpoints

NEEDLE = b"needle-in-the-haystack"


def _store(connection: Connection) -> None:
    statement = text("INSERT INTO facts (name, value) VALUES ('needle', :value)")
    connection.execute(statement, {"value": NEEDLE})


async def test_what_was_written_comes_into_the_file_by_itself(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    await database.write(_store)
    file = tmp_path / "insula.db"
    async with asyncio.timeout(10):
        while NEEDLE not in file.read_bytes():  # noqa: ASYNC110  # another thread writes it
            await asyncio.sleep(0.01)


async def test_the_thread_ends_with_the_database(tmp_path: Path) -> None:
    opened = await open_sqlite(tmp_path / "insula.db")
    assert "insula-checkpoint" in {thread.name for thread in threading.enumerate()}
    await opened.write(_store)
    await opened.close()
    assert "insula-checkpoint" not in {thread.name for thread in threading.enumerate()}
    assert not (tmp_path / "insula.db-wal").exists()


def test_a_stop_right_after_it_was_looked_for_is_not_missed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "insula.db")

    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            was = self.is_set()
            self.set()
            checkpoints.note()
            return was

    checkpoints._stopped = Late()
    checkpoints.note()
    checkpoints._thread.join(10)
    assert not checkpoints._thread.is_alive()
