"""Reading beside the writer: a few threads, each with a connection that cannot write."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from insula.errors import InsulaError, Unavailable

T = TypeVar("T")

QUERIES_WAITING_MAX = 1_000
DEADLINE = 30.0


class Reading:
    """One query, which another thread may ask to stop."""

    def __init__(self, query: Callable[[Connection], Any]) -> None:
        self.query = query
        self.interrupted = False
        self.connection: Connection | None = None
        """The one it runs on, while it does; changed under the lock."""
        self.lock = threading.Lock()

    def stops(self) -> bool:
        """Say whether it is to stop; for whoever is asked now and then."""
        return self.interrupted


class Source(Protocol):
    """Where reading connections come from, and how their transactions are."""

    def open(self) -> Connection:
        """Open a connection."""
        ...

    def begin(self, connection: Connection, reading: Reading) -> None:
        """Begin a snapshot."""
        ...

    def end(self, connection: Connection, reading: Reading) -> bool:
        """End it; say whether the connection can be used again, else close it. Never raises."""
        ...

    def interrupt(self, reading: Reading) -> None:
        """Stop the query, which is marked as interrupted already. Called on the loop."""
        ...

    def translate(self, error: BaseException) -> InsulaError | None:
        """Translate an error that is not the program's own to what a caller may be told."""
        ...

    def close(self) -> None:
        """Close what it has of its own."""
        ...


class Readers:
    """Runs queries, each in a snapshot of its own."""

    def __init__(self, source: Source, threads: int, deadline: float = DEADLINE) -> None:
        self._source = source
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="insula-reader")
        self._deadline = deadline
        self._idle: list[Connection] = []
        self._running: set[Reading] = set()
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
        reading = Reading(query)
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
            self._interrupt(reading)

    async def close(self) -> None:
        """Interrupt what runs, end the threads, close the connections."""
        self._closed = True
        for reading in list(self._running):
            self._interrupt(reading)
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        self._source.close()

    def _interrupt(self, reading: Reading) -> None:
        reading.interrupted = True
        if reading.connection is not None:
            self._source.interrupt(reading)

    def _run(self, reading: Reading) -> Any:
        try:
            while True:
                rested = self._rested()
                connection = rested or self._source.open()
                try:
                    return self._query(connection, reading)
                except Exception:
                    # One that rested may have broken in the meantime; a new one will do.
                    if not (rested and connection.closed) or reading.interrupted:
                        raise
        except Exception as error:
            told = self._source.translate(error)
            if told is None:
                raise
            raise told from error

    def _rested(self) -> Connection | None:
        # Asked first whether there is one, another thread might take it in between.
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _query(self, connection: Connection, reading: Reading) -> Any:
        with reading.lock:
            reading.connection = connection
        try:
            if reading.interrupted:
                raise Unavailable("Nobody waits for this query any more.")
            self._source.begin(connection, reading)
            return reading.query(connection)
        finally:
            with reading.lock:
                reading.connection = None
            if self._source.end(connection, reading):
                self._idle.append(connection)
