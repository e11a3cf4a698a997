"""The reading connections of SQLite, each with a transaction that cannot write."""

from pathlib import Path

from sqlalchemy import Connection

from insula.errors import InsulaError
from insula.storage.reader import Reading
from insula.storage.sqlite_connection import driver, reading_engine, translate

_OPERATIONS_BETWEEN_QUESTIONS = 20_000


class SqliteSource:
    """Connections to one file, as ``storage.reader.Source``.

    SQLite asks every so often whether to go on. ``sqlite3_interrupt`` would not do: between two
    statements it is lost.
    """

    def __init__(self, path: Path) -> None:
        self._engine = reading_engine(path)

    def open(self) -> Connection:
        """Open a connection."""
        return self._engine.connect()

    def begin(self, connection: Connection, reading: Reading) -> None:
        """Begin a snapshot."""
        raw = driver(connection)
        raw.set_progress_handler(reading.stops, _OPERATIONS_BETWEEN_QUESTIONS)
        raw.execute("BEGIN")

    def end(self, connection: Connection, reading: Reading) -> bool:
        """End it; the connection can always be used again."""
        raw = driver(connection)
        raw.set_progress_handler(None, 0)
        if connection.in_transaction():
            connection.rollback()
        if raw.in_transaction:
            raw.rollback()
        return True

    def interrupt(self, reading: Reading) -> None:
        """Nothing: the query asks by itself."""

    def translate(self, error: BaseException) -> InsulaError | None:
        """Translate an error of the disk, the memory or a lock."""
        return translate(error)

    def close(self) -> None:
        """Let go of what it has of its own."""
        self._engine.dispose()
