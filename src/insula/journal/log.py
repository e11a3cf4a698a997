"""The journal of one run that this process owns: events are recorded at once, stored with the next
group, and told to those who listen after that.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from insula.engine.events import Event, FinalStatus, RunEnded
from insula.engine.ports import Fenced
from insula.errors import Unavailable
from insula.journal.pending import Pending
from insula.journal.store import Batch, Counted, Ending, compress
from insula.journal.subscription import Subscription
from insula.storage.gather import Gathering

KEPT_MAX = 256 * 1024
_RETRY_FIRST = 0.05
_RETRY_MAX = 1.0


class Owner(Protocol):
    """What a log asks of the journal that opened it."""

    token: str
    appending: Gathering[Batch, bool]
    ending: Gathering[Ending, bool]

    def schedule(self, log: "RunLog") -> None:
        """Call ``log.send`` when the tasks that are ready now have had their turn."""

    def linger(self, log: "RunLog") -> None:
        """Call ``log.hurry`` a moment later, or at once if somebody listens to the run."""

    def later(self, delay: float, again: Callable[[], None]) -> bool:
        """Try again after a delay in seconds; False: the journal is being closed, it is over."""

    def told(self, log: "RunLog", pending: Pending) -> None:
        """Tell those who listen; it is stored."""

    def gone(self, log: "RunLog") -> None:
        """Forget a log that has ended, or is fenced."""

    def lapsed(self) -> bool:
        """Say whether this process's lease has run out."""

    async def held(self) -> None:
        """Wait until there is a lease again; raise ``Fenced`` where there will be none."""

    def subscribe(self, run_id: str) -> Subscription:
        """Listen to a run."""


class RunLog:
    """Implements ``engine.ports.Recorder``; made by ``Journal.open``, gone once the run has ended.

    At most one batch is on its way. A log that is fenced drops what is recorded.
    """

    def __init__(
        self, owner: Owner, run_id: str, seq: int, counted: Counted | None, lingers: bool = False
    ) -> None:
        self.run_id = run_id
        self.seq = seq
        """The number of the last event that is stored."""
        self.fenced = False
        self.final: FinalStatus | None = None
        """The status that the run's end is being, or has been, written with."""
        self.left_rows = False
        """Whether the journal was too long to be replaced by one row at its end."""
        self.stalled_since: float | None = None
        """Since when something recorded waits to be stored, or the run for a lease, in the loop's
        time; None: all is well, as far as is known."""
        self._owner = owner
        self._counted = counted
        self._failure: BaseException | None = None
        self._pending = Pending()
        self._flight: tuple[Batch, Pending] | None = None
        self._outcome: asyncio.Future[bool] | None = None
        """Whoever waits for the end that is being written."""
        self._under = ""
        """The token under which the batch, or the end, was sent last."""
        self._scheduled = False
        self._lingers = lingers
        """Whether what is recorded is sent a moment later: nobody waits for it so far."""
        self._delay = _RETRY_FIRST
        self._kept: list[bytes] | None = [] if seq == 0 else None
        self._kept_size = 0

    def record(self, event: Event) -> None:
        """Append an event.

        Raises:
            StepFailure: it is over 64 MiB (``limit_output``), or a text in it is not Unicode.
            RuntimeError: the run's end is being written, or has been.
        """
        if self.fenced:
            return
        if self.final is not None:
            raise RuntimeError(f"{self.run_id} has ended: nothing follows its last event.")
        self._pending.add(event)
        self._schedule()

    async def stored(self) -> None:
        """Wait until all that was recorded is stored, and this process still owns the run.

        While the process has no lease this waits: it goes on if the run is still its own then.

        Raises:
            Fenced: it is another's.
        """
        self._check()
        self.hurry()
        waiting = self._last_waiting()
        if waiting is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append(future)
            await future
            self._check()
        if self._owner.lapsed():
            await self._held()

    async def end(
        self,
        event: RunEnded,
        columns: Mapping[str, object] | None = None,
        finish: Callable[[Connection], None] | None = None,
    ) -> bool:
        """Write the end: what is pending, the event, the row's final columns, and the counters.

        ``columns`` come on top of ``status``, ``error``, ``ended_at`` and ``updated_at``, which are
        the event's. ``finish`` runs in the same unit, after them; if it fails nothing was written,
        its error is raised here, and the end may be written again. While the disk takes nothing it
        is tried again. Cancelling the awaiting task does not withdraw an end that is on its way
        (``final`` is set).

        Returns False where this process does not own the run, or the run has ended.

        Raises:
            Unavailable: the journal was closed while nothing could be stored.
        """
        if self.fenced:
            return False
        if self.final is not None:
            raise RuntimeError(f"The end of {self.run_id} is being written, or has been.")
        self._pending.add(event)
        self.final = event.status
        try:
            ours = await self._settled()
        except asyncio.CancelledError:
            self._withdraw_end()
            raise
        if not ours:
            return False
        ending = self._make_ending(event, columns or {}, finish)
        self._outcome = asyncio.get_running_loop().create_future()
        self._submit_end(ending, self._outcome)
        return await self._outcome

    def hurry(self) -> None:
        """Put what is recorded on its way at once, from now on."""
        if self._lingers:
            self._lingers = self._scheduled = False
            if self._pending.events:
                self._schedule()

    def subscribe(self) -> Subscription:
        """Hear of what is stored from now on."""
        return self._owner.subscribe(self.run_id)

    def send(self) -> None:
        """Put what is pending on its way, unless a batch is, or the run is ending."""
        self._scheduled = False
        if self._flight is not None or self.final is not None or not self._pending.events:
            return
        pending, self._pending = self._pending, Pending()
        self._flight = (self._make_batch(pending), pending)
        if self.stalled_since is None:
            self.stalled_since = asyncio.get_running_loop().time()
        self._submit()

    def drop(self, failure: BaseException | None = None) -> None:
        """Give up the run: it is another's, or (``failure``) the journal cannot hold it."""
        if self.fenced:
            return
        self.fenced = True
        self._failure = failure
        flight, self._flight = self._flight, None
        pending, self._pending = self._pending, Pending()
        for part in (flight[1] if flight else None, pending):
            if part is not None:
                part.resolve(failure or Fenced(self.run_id))
        self._owner.gone(self)

    def abandon(self) -> None:
        """Let go whoever waits, at the last: what is on its way may or may not come to be stored,
        and whoever goes on with the run will see."""
        unknown = Unavailable("The server is stopping.", retry_after=5)
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(unknown)
        self.drop(unknown)

    def _schedule(self) -> None:
        if not self._scheduled and self._flight is None:
            self._scheduled = True
            if self._lingers:
                self._owner.linger(self)
            else:
                self._owner.schedule(self)

    def _make_batch(self, pending: Pending) -> Batch:
        pending.close()
        at = pending.events[-1].at
        last = self.seq + len(pending.events)
        return Batch(self.run_id, self.seq, last, at, pending.encoded())

    async def _held(self) -> None:
        if self.stalled_since is None:
            self.stalled_since = asyncio.get_running_loop().time()
        await self._owner.held()
        if self._flight is None:
            self.stalled_since = None
        self._check()

    def _submit(self) -> None:
        if self._flight is not None:
            self._under = self._owner.token
            self._owner.appending.submit(self._flight[0], self._appended)

    def _appended(self, stored: bool | None, error: BaseException | None) -> None:
        if self._flight is None:  # dropped in the meantime
            return
        if self._retries(error, self._submit) or self._fenced_early(stored, error, self._submit):
            return
        if error is not None or not stored:
            self.drop(error)
            return
        (batch, pending), self._flight = self._flight, None
        if self._kept is not None:
            self._kept_size += pending.size
            if self._kept_size <= KEPT_MAX:
                self._kept += pending.parts
            else:
                self._kept = None
        self._tell(batch, pending)
        self.send()

    async def _settled(self) -> bool:
        """Wait until no batch is on its way; say whether the run is still ours."""
        while self._flight is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flight[1].waiting.append(future)
            try:
                await asyncio.wait([future])
            finally:
                # Whether it was stored is read from `fenced`; nobody asks the future.
                if not future.cancel():
                    future.exception()
        return not self.fenced

    def _make_ending(
        self,
        event: RunEnded,
        columns: Mapping[str, object],
        finish: Callable[[Connection], None] | None,
    ) -> Ending:
        row = {"status": event.status, "error": event.error, "ended_at": event.at, **columns}
        row.pop("updated_at", None)  # the time of the batch, as always
        batch = self._make_batch(self._pending)
        journal = None
        if self._kept is not None and self._kept_size + self._pending.size <= KEPT_MAX:
            journal = compress(b"[" + b",".join([*self._kept, *self._pending.parts]) + b"]")
        return Ending(batch, event.status, row, journal, self.seq > 0, self._counted, finish)

    def _submit_end(self, ending: Ending, outcome: "asyncio.Future[bool]") -> None:
        self._under = self._owner.token
        self._owner.ending.submit(ending, partial(self._end_stored, ending, outcome))

    def _end_stored(
        self,
        ending: Ending,
        outcome: "asyncio.Future[bool]",
        ended: bool | None,
        error: BaseException | None,
    ) -> None:
        again = partial(self._submit_end, ending, outcome)
        if self.fenced and not ended:  # another's by now: nothing of it is sent again
            ended, error = False, None
        if self._retries(error, again) or self._fenced_early(ended, error, again):
            return
        if error is not None:
            self._withdraw_end()
        elif ended:
            self._ended(ending)
        else:
            self.drop()
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(bool(ended))

    def _ended(self, ending: Ending) -> None:
        pending, self._pending = self._pending, Pending()
        self.left_rows = ending.journal is None
        self._tell(ending.batch, pending)
        self._owner.gone(self)

    def _withdraw_end(self) -> None:
        self.final = None
        if not self.fenced:
            self._pending.withdraw_last()
            self._schedule()

    def _retries(self, error: BaseException | None, again: Callable[[], None]) -> bool:
        """Say whether it will be tried again, because nothing can be stored just now."""
        if not isinstance(error, Unavailable) or not self._owner.later(self._delay, again):
            return False
        self._delay = min(self._delay * 2, _RETRY_MAX)
        return True

    def _fenced_early(
        self, ours: bool | None, error: BaseException | None, again: Callable[[], None]
    ) -> bool:
        """Say whether it will be tried again, because the fence was that of a former lease: the run
        may have been kept under the new one, or is about to be."""
        if error is not None or ours or self.fenced:
            return False
        if self._under != self._owner.token:
            again()
            return True
        return self._owner.lapsed() and self._owner.later(_RETRY_FIRST, again)

    def _tell(self, batch: Batch, pending: Pending) -> None:
        self.seq = batch.last
        self.stalled_since = None
        self._delay = _RETRY_FIRST
        self._owner.told(self, pending)
        pending.resolve()

    def _last_waiting(self) -> "list[asyncio.Future[None]] | None":
        """Return the list of those who wait for all that was recorded; None: it is stored."""
        if self._pending.events:
            return self._pending.waiting
        return None if self._flight is None else self._flight[1].waiting

    def _check(self) -> None:
        if self.fenced:
            raise self._failure if self._failure is not None else Fenced(self.run_id)
