"""Reading beside the writer: a few threads, each with a connection that cannot write."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from insula.errors import Unavailable
from insula.storage.sqlite_connection import driver, not_now, reading_engine

T = TypeVar("T")

QUERIES_WAITING_MAX = 1_000
DEADLINE = 30.0
_OPERATIONS_BETWEEN_QUESTIONS = 20_000


class _Reading:
    """One query, which another thread may ask to stop.

    SQLite asks every so often whether to go on. ``sqlite3_interrupt`` would not do: between two
    statements it is lost.
    """

    def __init__(self, query: Callable[[Connection], Any]) -> None:
        self.query = query
        self.interrupted = False

    def stops(self) -> bool:
        return self.interrupted


class Readers:
    """Runs queries, each in a snapshot of its own."""

    def __init__(self, path: Path, threads: int, deadline: float = DEADLINE) -> None:
        self._engine = reading_engine(path)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="insula-reader")
        self._deadline = deadline
        self._idle: list[Connection] = []
        self._running: set[_Reading] = set()
        self._closed = False

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query.

        Cancelling the awaiting task interrupts it.

        Raises:
            Unavailable: it took longer than the deadline, too many wait, or the disk fails.
        """
        if self._closed:
            raise Unavailable("The server is stopping.", retry_after=5)
        if len(self._running) >= QUERIES_WAITING_MAX:
            raise Unavailable(f"{QUERIES_WAITING_MAX} queries wait. Try again.", retry_after=1)
        reading = _Reading(query)
        self._running.add(reading)
        deadline = asyncio.timeout(self._deadline)
        try:
            async with deadline:
                running = asyncio.get_running_loop().run_in_executor(
                    self._executor, self._run, reading
                )
                result: T = await running
                return result
        except TimeoutError:
            if not deadline.expired():
                raise
            raise Unavailable(
                f"The query took longer than {self._deadline:g} s.", retry_after=5
            ) from None
        finally:
            self._running.discard(reading)
            reading.interrupted = True

    async def close(self) -> None:
        """Interrupt what runs, end the threads, close the connections."""
        self._closed = True
        for reading in list(self._running):
            reading.interrupted = True
        # Interrupted queries end at once, so this does not hold up the loop.
        self._executor.shutdown(wait=True, cancel_futures=True)
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._engine.dispose()

    def _run(self, reading: _Reading) -> Any:
        connection = self._idle.pop() if self._idle else self._engine.connect()
        raw = driver(connection)
        try:
            raw.set_progress_handler(reading.stops, _OPERATIONS_BETWEEN_QUESTIONS)
            raw.execute("BEGIN")
            return reading.query(connection)
        except Exception as error:
            unavailable = not_now(error)
            if unavailable is not None:
                raise unavailable from error
            raise
        finally:
            raw.set_progress_handler(None, 0)
            if connection.in_transaction():
                connection.rollback()
            if raw.in_transaction:
                raw.rollback()
            self._idle.append(connection)
