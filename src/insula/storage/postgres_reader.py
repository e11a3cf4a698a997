"""The reading connections of PostgreSQL, each with a snapshot that cannot write."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from insula.errors import InsulaError
from insula.storage.postgres_connection import (
    Limits,
    hang_up,
    make_engine,
    raw_of,
    translate,
)
from insula.storage.postgres_pipeline import Command, pipeline_of
from insula.storage.reader import DEADLINE, Reading

_LIMITS = Limits(
    statement_ms=int(DEADLINE * 1000), lock_ms=5_000, idle_in_transaction_ms=60_000, read_only=True
)
_BEGIN = Command(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", as_is=True)
_CANCEL_WITHIN = 2.0


class PostgresSource:
    """Connections to one database, as ``storage.reader.Source``."""

    def __init__(self, url: str, name: str) -> None:
        self._engine = make_engine(url, name, _LIMITS)
        self._cancelling = ThreadPoolExecutor(1, thread_name_prefix="insula-canceller")

    def open(self) -> Connection:
        """Open a connection."""
        return self._engine.connect()

    def begin(self, connection: Connection, reading: Reading) -> None:
        """Begin a snapshot, with the first statement."""
        pipeline = pipeline_of(connection)
        pipeline.arrive()
        pipeline.begin(_BEGIN)

    def end(self, connection: Connection, reading: Reading) -> bool:
        """End it. A connection whose query was interrupted is closed: the interruption may still
        be on its way, and would meet the next query."""
        try:
            usable = not reading.interrupted and not connection.invalidated
            if usable and not pipeline_of(connection).leaving:
                raw = raw_of(connection)
                raw.own_pipeline.forget()
                # Before SQLAlchemy does: psycopg's own would have all be prepared anew. Nobody who
                # reads has to wait for it.
                if raw.info.transaction_status != TransactionStatus.IDLE:
                    raw.own_pipeline.leave(b"ROLLBACK")
                if connection.in_transaction():
                    connection.rollback()
                return True
        except (DBAPIError, psycopg.Error):
            pass  # what is wrong with the connection ends with it
        with suppress(DBAPIError, psycopg.Error):
            connection.invalidate()
            connection.close()
        return False

    def interrupt(self, reading: Reading) -> None:
        """Ask the server to stop the query, off the loop; hang up where it does not answer."""
        self._cancelling.submit(_cancel, reading)

    def translate(self, error: BaseException) -> InsulaError | None:
        """Translate an error of the server or of the way to it."""
        return translate(error, writing=False)

    def close(self) -> None:
        """Let go of what it has of its own."""
        self._cancelling.shutdown(wait=True)
        self._engine.dispose()


def _cancel(reading: Reading) -> None:
    with reading.lock:  # the connection stays with this query until the server has been asked
        if reading.connection is None:
            return
        raw = raw_of(reading.connection)
        try:
            raw.cancel_safe(timeout=_CANCEL_WITHIN)
        except psycopg.Error:
            hang_up(raw)
