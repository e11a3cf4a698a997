"""The pool of workers: the product's ``Sandbox``.

A worker serves one evaluation at a time, and for life one app with the code of one. The pool keeps
some ready, grows to a maximum, and replaces what it has killed in the background.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from insula.adapters.sandbox.conversation import TURN, Conversation
from insula.adapters.sandbox.forker import Forker, Listener
from insula.adapters.sandbox.process import Worker
from insula.adapters.sandbox.shares import Shares, Ticket
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, Evaluated, Evaluation, Lane
from insula.kit.turns import Turns

_START_SECONDS = 30.0
_SWEEP_SECONDS = 5.0
_SERVES = 20_000
"""Evaluations after which a worker is replaced, against slow growth."""
_LANES: tuple[Lane, ...] = ("quickjs", "v8")
_REFILL_SECONDS = 0.005
"""How long the refill of ready workers gives way to what was asked for."""
_FAILED_STARTS = 3
_RETRY_SECONDS = 1.0

log = structlog.get_logger("insula.sandbox")


@dataclass(frozen=True, slots=True)
class Stats:
    """The pool in figures. ``killed`` counts from the start; ``missing`` are walls not standing."""

    alive: int
    busy: int
    waiting: int
    killed: int
    missing: tuple[tuple[str, str], ...]


class _Idle:
    """Workers without work, by lane and whose they are; who has rested longest comes first."""

    def __init__(self) -> None:
        self._workers: dict[tuple[Lane, tuple[str, str] | None], deque[Worker]] = {}

    def __iter__(self) -> Iterator[Worker]:
        return (worker for workers in self._workers.values() for worker in workers)

    def put(self, worker: Worker) -> None:
        self._workers.setdefault((worker.lane, worker.of), deque()).append(worker)

    def fits(self, ticket: Ticket) -> bool:
        lane = ticket.lane
        return (lane, ticket.worker_of) in self._workers or (lane, None) in self._workers

    def take(self, lane: Lane, worker_of: tuple[str, str]) -> Worker | None:
        for key in ((lane, worker_of), (lane, None)):
            workers = self._workers.get(key)
            if workers:
                worker = workers.popleft()
                if not workers:
                    del self._workers[key]
                return worker
        return None

    def unused(self, lane: Lane) -> int:
        return len(self._workers.get((lane, None), ()))

    def discard(self, worker: Worker) -> None:
        key = (worker.lane, worker.of)
        workers = self._workers.get(key)
        if workers and worker in workers:
            workers.remove(worker)
            if not workers:
                del self._workers[key]


class SandboxPool:
    """JavaScript in killable processes. ``start`` before use, ``close`` at the end."""

    def __init__(
        self,
        maximum: int = 8,
        warm: int = 2,
        app_share: float = 0.5,
        reserved_for_conditions: int = 1,
        fetch_max_bytes: int = 16 * 1024 * 1024,
        idle_seconds: float = 60.0,
    ) -> None:
        self._shares = Shares(maximum, app_share, reserved_for_conditions)
        self._warm = min(warm, self._shares.maximum)
        self._fetch_max_bytes = fetch_max_bytes
        self._turns = Turns(TURN)
        self._idle_seconds = idle_seconds
        self._idle = _Idle()
        self._workers: set[Worker] = set()
        self._forkers: dict[Lane, Forker] = {}
        self._retired_forkers: set[Forker] = set()
        self._failed_starts: dict[Lane, int] = {"quickjs": 0, "v8": 0}
        self._missing: dict[str, str] = {}
        self._killed = 0
        self._v8_used = float("-inf")
        self._first: asyncio.Future[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._retries: dict[Lane, asyncio.TimerHandle] = {}
        self._refill: asyncio.TimerHandle | None = None
        self._running = False

    async def start(self) -> None:
        """Start the zygote and wait for the first worker.

        Raises:
            RuntimeError: no worker comes up on this machine.
        """
        loop = asyncio.get_running_loop()
        self._running = True
        self._first = loop.create_future()
        for _ in range(max(1, self._warm)):
            self._fork("quickjs")
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._first
        except TimeoutError:
            await self.close()
            raise RuntimeError("the JavaScript sandbox does not start") from None

    async def close(self) -> None:
        """Kill every worker, end the zygotes, and wait until they are gone."""
        self._running = False
        for timer in (self._sweeper, self._refill, *self._retries.values()):
            if timer is not None:
                timer.cancel()
        self._refuse("the sandbox is closing")
        for worker in tuple(self._workers):
            self._kill(worker)
        for forker in (*self._forkers.values(), *self._retired_forkers):
            await forker.close()
        # Those too that were asked for before and born meanwhile.
        while self._workers:
            await asyncio.wait([worker.death for worker in self._workers])

    def stats(self) -> Stats:
        """Return the pool in figures."""
        return Stats(
            alive=len(self._workers),
            busy=self._shares.busy,
            waiting=self._shares.waiting,
            killed=self._killed,
            missing=tuple(self._missing.items()),
        )

    async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
        """Run the scripts in one fresh context.

        Raises:
            StepFailure: ``script``, ``limit_…``, ``engine_crash``.
        """
        worker = await self._place(evaluation, activity)
        activity.doing = "running code"
        try:
            conversation = Conversation(
                worker, evaluation, activity, self._fetch_max_bytes, self._turns
            )
            return await conversation.run()
        finally:
            self._release(worker, evaluation)

    async def _place(self, evaluation: Evaluation, activity: Activity) -> Worker:
        app_id, condition = evaluation.app_id, evaluation.condition
        if not self._running:
            raise StepFailure("the sandbox is not running", "engine_crash")
        if self._shares.waiting == 0 and self._shares.admits(app_id, condition):
            worker = self._idle.take(evaluation.lane, evaluation.worker_of)
            if worker is not None:
                self._assign(worker, evaluation.worker_of, condition)
                return worker
        activity.doing = "waiting for a free place in the sandbox"
        granted: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        ticket = Ticket(app_id, evaluation.worker_of, evaluation.lane, condition, granted)
        self._shares.wait(ticket)
        self._dispatch()
        try:
            return await granted
        except asyncio.CancelledError:
            self._shares.withdraw(ticket)
            if not granted.cancelled() and granted.exception() is None:
                self._release(granted.result(), evaluation)
            raise

    def _assign(self, worker: Worker, worker_of: tuple[str, str], condition: bool) -> None:
        fresh = worker.of is None
        worker.of = worker_of
        if worker.lane == "v8":
            self._v8_used = asyncio.get_running_loop().time()
        self._shares.enter(worker_of[0], condition)
        if fresh:
            self._grow()

    def _release(self, worker: Worker, evaluation: Evaluation) -> None:
        self._shares.leave(evaluation.app_id, evaluation.condition)
        if worker.served >= _SERVES:
            self._kill(worker)
        if worker in self._workers and not worker.killed:
            worker.idle_since = asyncio.get_running_loop().time()
            self._idle.put(worker)
        if self._shares.waiting or worker.killed:
            self._dispatch()

    def _dispatch(self) -> None:
        """Give idle workers to whoever is next, then see whether more are needed."""
        while (ticket := self._shares.next(self._idle.fits)) is not None:
            self._shares.withdraw(ticket)
            if ticket.granted.done():  # cancelled a moment ago
                continue
            worker = self._idle.take(ticket.lane, ticket.worker_of)
            assert worker is not None, "it fits"
            self._assign(worker, ticket.worker_of, ticket.condition)
            ticket.granted.set_result(worker)
        self._grow()

    def _grow(self) -> None:
        """Ask for the workers that those who wait need, and for the ready ones."""
        if not self._running:
            return
        for lane in _LANES:
            needed = 0
            if lane not in self._retries:
                needed = self._shares.wanted(lane) - self._asked(lane)
            for _ in range(needed):
                if not (self._room() or self._evict()):
                    return
                self._fork(lane)
        if self._refill is None and any(self._lacking(lane) > 0 for lane in _LANES):
            loop = asyncio.get_running_loop()
            self._refill = loop.call_later(_REFILL_SECONDS, self._warm_up)

    def _warm_up(self) -> None:
        """Ask for the ready workers that lack, if there is room for them."""
        self._refill = None
        for lane in _LANES:
            for _ in range(self._lacking(lane)):
                if not self._running or not self._room():
                    return
                self._fork(lane)

    def _lacking(self, lane: Lane) -> int:
        if lane in self._retries:
            return 0
        warm = self._warm if lane == "quickjs" else self._warm_v8()
        return warm - self._idle.unused(lane) - self._asked(lane)

    def _warm_v8(self) -> int:
        """One, while V8 is in use; a worker of it is large."""
        now = asyncio.get_running_loop().time()
        return int(now - self._v8_used < self._idle_seconds)

    def _asked(self, lane: Lane) -> int:
        return self._forkers[lane].asked if lane in self._forkers else 0

    def _room(self) -> bool:
        alive = sum(not worker.killed for worker in self._workers)
        asked = sum(forker.asked for forker in self._forkers.values())
        return alive + asked < self._shares.maximum

    def _evict(self) -> bool:
        """Kill the idle worker that has rested longest, to make room for another lane or owner."""
        resting = min(self._idle, key=lambda worker: worker.idle_since, default=None)
        if resting is None:
            return False
        self._kill(resting)
        return True

    def _fork(self, lane: Lane) -> None:
        if lane not in self._forkers:
            listener = Listener(self._born, self._ready, self._ended, self._down)
            self._forkers[lane] = Forker(lane, listener)
        self._forkers[lane].fork()

    def _kill(self, worker: Worker) -> None:
        self._idle.discard(worker)
        worker.kill()

    def _born(self, worker: Worker) -> None:
        self._workers.add(worker)
        if not self._running:
            worker.kill()
            return
        worker.idle_since = asyncio.get_running_loop().time()
        self._idle.put(worker)
        self._dispatch()

    def _ready(self, worker: Worker) -> None:
        self._failed_starts[worker.lane] = 0
        if worker.ready is not None:
            self._tell_missing(worker.ready.missing)
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _tell_missing(self, missing: Sequence[tuple[str, str]]) -> None:
        """Say once of each wall that it does not stand: the operator decides, not the log."""
        for wall, reason in missing:
            if wall not in self._missing:
                self._missing[wall] = reason
                log.warning("sandbox_wall_missing", wall=wall, reason=reason, see="insula doctor")

    def _ended(self, worker: Worker) -> None:
        self._workers.discard(worker)
        self._idle.discard(worker)
        self._killed += worker.killed
        if worker.ready is None and not worker.killed:
            self._start_failed(worker.lane)
        self._dispatch()

    def _down(self, forker: Forker) -> None:
        self._retired_forkers.discard(forker)
        if self._forkers.get(forker.lane) is forker:
            del self._forkers[forker.lane]
            self._start_failed(forker.lane)
            self._dispatch()

    def _start_failed(self, lane: Lane) -> None:
        """After some failed starts in a row, let nobody wait in vain, and try again later."""
        self._failed_starts[lane] += 1
        if (
            self._running
            and self._failed_starts[lane] >= _FAILED_STARTS
            and lane not in self._retries
        ):
            self._refuse(f"no {lane} worker of the sandbox comes up on this machine", (lane,))
            loop = asyncio.get_running_loop()
            self._retries[lane] = loop.call_later(_RETRY_SECONDS, self._try_again, lane)

    def _try_again(self, lane: Lane) -> None:
        del self._retries[lane]
        self._dispatch()

    def _refuse(self, reason: str, lanes: tuple[Lane, ...] = _LANES) -> None:
        for ticket in self._shares.tickets():
            if ticket.lane not in lanes:
                continue
            self._shares.withdraw(ticket)
            if not ticket.granted.done():
                ticket.granted.set_exception(StepFailure(reason, "engine_crash"))

    def _sweep(self) -> None:
        """Let go what has had nothing to do: workers beyond the ready ones, then the V8 zygote."""
        loop = asyncio.get_running_loop()
        before = loop.time() - self._idle_seconds
        for worker in tuple(self._idle):
            unused = worker.of is None and worker.lane == "quickjs"
            if worker.idle_since <= before and not unused:
                self._kill(worker)
        v8 = self._forkers.get("v8")
        if v8 and v8.asked == 0 and not any(worker.lane == "v8" for worker in self._workers):
            del self._forkers["v8"]
            self._retired_forkers.add(v8)
            v8.stop()
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
