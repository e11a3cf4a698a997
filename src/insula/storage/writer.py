"""The one thread that writes: it takes whatever units have gathered, commits them together, and
tells all of them with one call to the loop. No timer: the previous commit is the timer.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection

from insula.errors import Unavailable
from insula.storage.group import Outcome, Unit, UnsettledGroup, commit_group
from insula.storage.session import Session

UNITS_WAITING_MAX = 10_000
_UNITS_A_GROUP = 512
_SETTLE_EVERY = 0.2
_NOT_KNOWN = (
    "The server is stopping, and the database did not say whether this was stored. "
    "Look before you try again."
)

log = structlog.get_logger(__name__)


class _Submitted(NamedTuple):
    unit: Unit
    future: asyncio.Future[Any]
    serial: bool
    outside: bool = False


class _Unsettled(NamedTuple):
    group: list[_Submitted]
    mark: int
    outcomes: list[Outcome]


class Writer:
    """Owns the writing session from start to close, and hands it to nobody else.

    With a ``deadline`` a group that takes longer loses its connection.
    """

    def __init__(self, session: Session, deadline: float | None = None) -> None:
        self._session = session
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._stopped = self._loop.create_future()
        self._waiting: queue.SimpleQueue[_Submitted | None] = queue.SimpleQueue()
        self._unsettled: list[_Unsettled] = []
        self._began: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False
        # A daemon, so that a process which fails before close() still ends; whatever was told
        # has been committed by then.
        self._thread = threading.Thread(target=self._run, name="insula-writer", daemon=True)
        self._thread.start()

    def submit(
        self, unit: Callable[[Connection], Any], serial: bool = True, outside: bool = False
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
        self._waiting.put(_Submitted(unit, future, serial, outside))
        if self._deadline is not None and self._watch is None:
            self._watch = self._loop.call_later(self._deadline, self._look)
        return future

    async def close(self) -> None:
        """Commit what was submitted, close the connection, end the thread."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        await asyncio.shield(self._stopped)
        if self._watch is not None:
            self._watch.cancel()
        self._thread.join()

    def _look(self) -> None:
        """End a group that takes too long; look again later while there is anything to look at."""
        assert self._deadline is not None
        self._watch = None
        began = self._began
        if began is not None and time.monotonic() - began >= self._deadline:
            log.warning("storage.stuck", seconds=round(time.monotonic() - began, 1))
            self._session.abort()
        if began is not None or self._unsettled or not self._waiting.empty():
            self._watch = self._loop.call_later(self._deadline / 4, self._look)

    def _run(self) -> None:
        try:
            while (group := self._take()) or self._unsettled:
                self._settle(last=not group)
                inside = [submitted for submitted in group if not submitted.outside]
                if inside:
                    with self._watched():
                        self._commit(inside)
                for submitted in group:
                    if submitted.outside:
                        self._call_loop(_set, submitted.future, self._run_outside(submitted.unit))
        finally:
            self._session.close()
            self._call_loop(_set, self._stopped, Outcome())

    def _take(self) -> list[_Submitted]:
        """Wait for a unit, then take all that are there; nothing once closed and drained."""
        group: list[_Submitted] = []
        submitted = self._first()
        with contextlib.suppress(queue.Empty):  # all taken
            while submitted is not None:
                group.append(submitted)
                if len(group) >= _UNITS_A_GROUP:
                    return group
                submitted = self._waiting.get_nowait()
            self._waiting.put(None)  # the last thing ever put: found again next time
        return group

    def _first(self) -> _Submitted | None:
        while self._unsettled:
            try:
                return self._waiting.get(timeout=_SETTLE_EVERY)
            except queue.Empty:
                self._settle()
        return self._waiting.get()

    def _settle(self, last: bool = False) -> None:
        """Find out what became of the groups whose commits nobody answered, as far as can be
        found out now. Those who wait for them are told then, and not before."""
        for one in tuple(self._unsettled):
            with self._watched():
                self._settle_one(one, last)

    def _settle_one(self, one: _Unsettled, last: bool) -> None:
        try:
            stood = self._session.settle(one.mark)
        except Exception as error:
            if last:
                self._unsettled.remove(one)
                log.warning("storage.not_settled", units=len(one.group), reason=str(error))
                outcome = Outcome(error=Unavailable(_NOT_KNOWN, retry_after=5))
                self._call_loop(_tell, one.group, [outcome for _ in one.group])
            return
        self._unsettled.remove(one)
        log.info("storage.settled", units=len(one.group), committed=stood)
        if stood:
            self._call_loop(_tell, one.group, one.outcomes)
        else:
            self._commit(one.group)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Lose the connection where this takes longer than the deadline."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    def _commit(self, group: list[_Submitted]) -> None:
        units = [submitted.unit for submitted in group]
        serial = any(submitted.serial for submitted in group)
        try:
            outcomes = commit_group(self._session, units, serial)
        except UnsettledGroup as unsettled:
            log.warning("storage.unsettled", units=len(units), reason=str(unsettled.__cause__))
            self._unsettled.append(_Unsettled(group, unsettled.mark, unsettled.outcomes))
            return
        except Exception as error:
            log.exception("storage.group_failed", units=len(units))
            outcomes = [Outcome(error=error) for _ in units]
        unavailable = [one.error for one in outcomes if isinstance(one.error, Unavailable)]
        if unavailable:
            log.warning("storage.unavailable", units=len(unavailable), reason=str(unavailable[0]))
        self._call_loop(_tell, group, outcomes)

    def _run_outside(self, unit: Unit) -> Outcome:
        try:
            return Outcome(unit(self._session.connection))
        except Exception as error:
            return Outcome(error=self._session.translate(error) or error)

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
