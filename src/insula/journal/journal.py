"""The journal: opens the logs of the runs that this process owns, and lets others read and follow
them, wherever they are executed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial

from sqlalchemy import Connection

from insula.engine.events import Event, RunEnded
from insula.engine.ports import Fenced
from insula.errors import InsulaError
from insula.journal import store
from insula.journal.compact import Compactor
from insula.journal.elsewhere import Elsewhere, Wakes
from insula.journal.lease import database_clock, orphans
from insula.journal.log import RunLog
from insula.journal.pending import Pending
from insula.journal.read import Stored, load
from insula.journal.store import Batch, Counted, Ending
from insula.journal.subscription import Heard, Reason, SlowReader, Subscription
from insula.storage.database import Database
from insula.storage.gather import Gathering

_CLOSING_MAX = 5.0
_LINGER = 0.1
"""Seconds: longer than a run of a few scripts takes, and too short for a reader to notice."""


class Journal:
    """One for each process. ``token`` is what stands as owner in the rows of its runs; it changes
    where a lease was lost and another taken. ``wakes`` are the messages between the nodes of a
    cluster; without them nothing is executed elsewhere.
    """

    def __init__(self, database: Database, token: str, wakes: Wakes | None = None) -> None:
        self.token = token
        self.lease_until: float | None = None
        """When the lease runs out, in seconds of ``clock``; None: the folder's lock is it."""
        self.clock: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        """Goes on while the machine sleeps, and no step of the wall clock moves it."""
        self.database_clock = database_clock(self.clock)
        self.compactor = Compactor(database)
        self.elsewhere = None if wakes is None else Elsewhere(database, wakes)
        self._database = database
        self._gather()
        self._logs: dict[str, RunLog] = {}
        self._heard: dict[str, list[Subscription]] = {}
        self._dirty: list[RunLog] = []
        self._lingering: list[RunLog] = []
        self._retries: dict[asyncio.TimerHandle, Callable[[], None]] = {}
        self._paused: list[asyncio.Future[None]] = []
        self._closed = False

    def _gather(self) -> None:
        # What was sent under a token is fenced by that token, whatever it is by then.
        append, end = partial(_append, self.token), partial(_end, self.token)
        self.appending: Gathering[Batch, bool] = Gathering(self._database, append)
        self.ending: Gathering[Ending, bool] = Gathering(self._database, end)

    def open(
        self,
        run_id: str,
        seq: int = 0,
        counted: Counted | None = None,
        *,
        lingers: bool = False,
    ) -> RunLog:
        """Open the log of a run that this process owns; ``seq`` is the row's.

        With ``counted`` (under which counter the run stands now) its end costs one query less.
        What is recorded with ``lingers`` is stored a moment later, together with what follows, as
        long as nobody asks for ``stored`` or listens: a short run that only computes has no batch
        but its end, and after a crash computes again.
        """
        if run_id in self._logs:
            raise RuntimeError(f"The log of {run_id} is open.")
        log = self._logs[run_id] = RunLog(self, run_id, seq, counted, lingers)
        return log

    def find(self, run_id: str) -> RunLog | None:
        """Return the open log of a run, if it is executed here."""
        return self._logs.get(run_id)

    def subscribe(self, run_id: str) -> Subscription:
        """Hear of what is stored of a run from now on, once it is executed here."""
        subscription = Subscription(run_id, self._unsubscribe)
        self._heard.setdefault(run_id, []).append(subscription)
        if (log := self._logs.get(run_id)) is not None:
            log.hurry()
        return subscription

    async def read(self, run_id: str) -> tuple[list[Event], int]:
        """Return the events that are stored of a run, and the number of the last one.

        Of a run that was erased there are none.
        """
        stored = await self._load(run_id)
        return stored.events, stored.seq

    async def follow(self, run_id: str, after: int = 0) -> AsyncGenerator[Heard, None]:
        """Yield ``(number of the last event, events)`` from event ``after`` + 1 on, without gap or
        repeat: first what is stored, then what is stored from then on, to the end of the run.

        In a cluster it goes on wherever the run does. Close it (``contextlib.aclosing``) where it
        is left before its end.

        Raises:
            SlowReader: the reader fell too far behind.
            Fenced: without a cluster: nobody executes the run now.
        """
        if self.elsewhere is None or self.find(run_id) is not None:
            async with contextlib.aclosing(self._follow_here(run_id, after)) as batches:
                try:
                    async for seq, events in batches:
                        after = max(after, seq)
                        yield seq, events
                    return
                except Fenced:
                    if self.elsewhere is None:
                        raise
        async with contextlib.aclosing(self.elsewhere.follow(run_id, after)) as batches:
            async for batch in batches:
                yield batch

    async def _follow_here(self, run_id: str, after: int) -> AsyncGenerator[Heard, None]:
        subscription = self.subscribe(run_id)
        try:
            stored = await self._load(run_id)
            seq = stored.seq
            if events := _after(stored.events, seq, after):
                yield seq, events
            if stored.ended:
                return
            async for last, heard in subscription:
                if last > seq and (events := _after(heard, last, max(seq, after))):
                    seq = last
                    yield last, events
            _raise(subscription)
        finally:
            subscription.close()

    async def compact(self, run_id: str) -> bool:
        """Replace the journal of an ended run by one row; say whether it was."""
        return await self.compactor.compact(run_id)

    def orphans(self, connection: Connection) -> list[str]:
        """List the runs that have not ended and whose owner is no living node."""
        return orphans(connection, self.token, self.database_clock)

    def lapsed(self) -> bool:
        """Say whether this process's lease has run out, or was lost."""
        return self.lease_until is not None and self.clock() >= self.lease_until

    async def held(self) -> None:
        """Wait until there is a lease again.

        Raises:
            Fenced: the journal is closed; there will be none.
        """
        while self.lapsed():
            if self._closed:
                raise Fenced("the lease of this process has run out")
            paused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._paused.append(paused)
            await paused

    def hold(self, until: float | None) -> None:
        """Count as living until then, in seconds of ``clock``; ``None``: for ever."""
        self.lease_until = until
        self._go_on()

    def lapse(self) -> None:
        """Count as dead until there is a lease again: nothing with an effect begins."""
        self.lease_until = self.clock()

    def adopt(self, token: str, until: float) -> None:
        """Go on under another token. What was sent under the former one is sent again under this;
        whoever knows which runs are another's now drops their logs before the loop turns.
        """
        self.token = token
        self._gather()
        self.hold(until)

    def stalled(self, since: float) -> list[str]:
        """List the runs of which something waits since before ``since``, in the loop's time, to be
        stored, or that wait for a lease. A run that has come to its end waits for nothing more.
        """
        return [
            log.run_id
            for log in self._logs.values()
            if log.stalled_since is not None and log.stalled_since <= since and log.final is None
        ]

    def _go_on(self) -> None:
        paused, self._paused = self._paused, []
        for future in paused:
            if not future.done():
                future.set_result(None)

    async def close(self) -> None:
        """Store what was recorded, then stop telling. What fails now is not tried again, and what
        a stuck database neither takes nor refuses is waited for no longer."""
        self._closed = True
        self._go_on()
        for retry, again in list(self._retries.items()):
            retry.cancel()
            again()
        self._retries.clear()
        open_now = list(self._logs.values())
        try:
            async with asyncio.timeout(_CLOSING_MAX):
                for log in open_now:
                    with contextlib.suppress(Fenced, InsulaError):  # whoever recorded hears it
                        await log.stored()
        except TimeoutError:  # the database is stuck, and says so itself
            self.stop_telling()
            for log in open_now:
                log.abandon()
        self.stop_telling()

    def stop_telling(self) -> None:
        """Let go everyone who follows a run, here or elsewhere: they may go on from what they have,
        at another node."""
        if self.elsewhere is not None:
            self.elsewhere.close()
        for run_id in list(self._heard):
            self._stop_telling(run_id, "closed")

    # What its logs call.

    def schedule(self, log: RunLog) -> None:
        """Call ``log.send`` when the tasks that are ready now have had their turn."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._send)
        self._dirty.append(log)

    def linger(self, log: RunLog) -> None:
        """Call ``log.hurry`` a moment later, or at once if somebody listens to the run."""
        if log.run_id in self._heard:
            log.hurry()
            return
        if not self._lingering:
            asyncio.get_running_loop().call_later(_LINGER, self._hurry)
        self._lingering.append(log)

    def later(self, delay: float, again: Callable[[], None]) -> bool:
        """Try again after a delay in seconds; False: the journal is being closed, it is over."""
        if self._closed:
            return False

        def fire() -> None:
            del self._retries[handle]
            again()

        handle = asyncio.get_running_loop().call_later(delay, fire)
        self._retries[handle] = again
        return True

    def told(self, log: RunLog, pending: Pending) -> None:
        """Tell those who listen, here and elsewhere; it is stored."""
        if self.elsewhere is not None:
            self.elsewhere.tell(log.run_id)
        heard = self._heard.get(log.run_id)
        if heard:
            for subscription in list(heard):
                subscription.put(log.seq, pending.events, pending.size)
            if type(pending.events[-1]) is RunEnded:
                self._stop_telling(log.run_id, "ended")

    def gone(self, log: RunLog) -> None:
        """Forget a log that has ended, or is fenced."""
        if self._logs.get(log.run_id) is log:
            del self._logs[log.run_id]
        if log.fenced:
            self._stop_telling(log.run_id, "fenced")
        elif log.left_rows:
            self.compactor.add(log.run_id)

    def _hurry(self) -> None:
        lingering, self._lingering = self._lingering, []
        for log in lingering:
            log.hurry()

    def _send(self) -> None:
        dirty, self._dirty = self._dirty, []
        for log in dirty:
            log.send()

    async def _load(self, run_id: str) -> Stored:
        return await self._database.read(partial(load, run_id=run_id))

    def _stop_telling(self, run_id: str, reason: Reason) -> None:
        for subscription in self._heard.pop(run_id, ()):
            subscription.end(reason)

    def _unsubscribe(self, subscription: Subscription) -> None:
        heard = self._heard.get(subscription.run_id)
        if heard is not None and subscription in heard:
            heard.remove(subscription)
            if not heard:
                del self._heard[subscription.run_id]


def _append(token: str, connection: Connection, batches: list[Batch]) -> list[bool]:
    return store.append(connection, token, batches)


def _end(token: str, connection: Connection, endings: list[Ending]) -> list[bool]:
    return store.end(connection, token, endings)


def _after(events: list[Event], last: int, after: int) -> list[Event]:
    """Return those of ``events``, which end with number ``last``, that come after ``after``."""
    return events[max(0, len(events) - max(0, last - max(0, after))) :]


def _raise(subscription: Subscription) -> None:
    if subscription.reason == "slow":
        raise SlowReader(f"The reader of {subscription.run_id} fell too far behind.")
    if subscription.reason == "fenced":
        raise Fenced(subscription.run_id)
