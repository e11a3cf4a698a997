"""The one thread that writes: it takes whatever units have gathered, commits them together, and
tells all of them with one call to the loop. No timer: the previous commit is the timer.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection

from insula.errors import Unavailable
from insula.storage.sqlite_connection import not_now
from insula.storage.sqlite_group import Outcome, Unit, commit_group

UNITS_WAITING_MAX = 10_000
_UNITS_A_GROUP = 512

log = structlog.get_logger(__name__)


class _Submitted(NamedTuple):
    unit: Unit
    future: asyncio.Future[Any]
    outside: bool = False


class Writer:
    """Owns the writing connection from start to close, and hands it to nobody else."""

    def __init__(self, connection: Connection, closing: Callable[[], None]) -> None:
        self._connection = connection
        self._closing = closing
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        self._waiting: queue.SimpleQueue[_Submitted | None] = queue.SimpleQueue()
        self._closed = False
        # A daemon, so that a process which fails before close() still ends; whatever was told
        # has been committed by then.
        self._thread = threading.Thread(target=self._run, name="insula-writer", daemon=True)
        self._thread.start()

    def submit(
        self, unit: Callable[[Connection], Any], outside: bool = False
    ) -> asyncio.Future[Any]:
        """Queue a unit for the next group; ``outside`` runs it after one, without a transaction.

        Raises:
            Unavailable: too many are waiting, or the database is being closed.
        """
        if self._closed:
            raise Unavailable("The server is stopping.", retry_after=5)
        if self._waiting.qsize() >= UNITS_WAITING_MAX:
            raise Unavailable(
                f"{UNITS_WAITING_MAX} changes wait to be stored. Try again.", retry_after=1
            )
        future = self._loop.create_future()
        self._waiting.put(_Submitted(unit, future, outside))
        return future

    async def close(self) -> None:
        """Commit what was submitted, close the connection, end the thread."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _run(self) -> None:
        try:
            while group := self._take():
                inside = [submitted for submitted in group if not submitted.outside]
                if inside:
                    outcomes = self._commit([submitted.unit for submitted in inside])
                    self._call_loop(_tell, inside, outcomes)
                for submitted in group:
                    if submitted.outside:
                        self._call_loop(_set, submitted.future, self._run_outside(submitted.unit))
        finally:
            self._closing()
            self._call_loop(_set, self._stopped, Outcome())

    def _take(self) -> list[_Submitted]:
        """Wait for a unit, then take all that are there; nothing once closed and drained."""
        first = self._waiting.get()
        group = [] if first is None else [first]
        with contextlib.suppress(queue.Empty):  # all taken
            while first is not None and len(group) < _UNITS_A_GROUP:
                submitted = self._waiting.get_nowait()
                if submitted is None:
                    self._waiting.put(None)  # the last thing ever put: found again next time
                    break
                group.append(submitted)
        return group

    def _commit(self, units: list[Unit]) -> list[Outcome]:
        try:
            outcomes = commit_group(self._connection, units)
        except Exception as error:
            log.exception("storage.group_failed", units=len(units))
            return [Outcome(error=error) for _ in units]
        unavailable = [one.error for one in outcomes if isinstance(one.error, Unavailable)]
        if unavailable:
            log.warning("storage.unavailable", units=len(unavailable), reason=str(unavailable[0]))
        return outcomes

    def _run_outside(self, unit: Unit) -> Outcome:
        try:
            return Outcome(unit(self._connection))
        except Exception as error:
            return Outcome(error=not_now(error) or error)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        # A closed loop raises RuntimeError: everyone who could have heard is gone with it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)


def _tell(group: list[_Submitted], outcomes: list[Outcome]) -> None:
    for submitted, outcome in zip(group, outcomes, strict=True):
        _set(submitted.future, outcome)


def _set(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.done():  # its task was cancelled; the unit stands all the same
        return
    if outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.value)
