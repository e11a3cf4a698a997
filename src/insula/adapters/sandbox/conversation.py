"""One evaluation, seen from the server: what is sent, what comes back, and who kills when."""

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec

from insula.adapters.sandbox import frames, verdicts
from insula.adapters.sandbox.frames import OVERHEAD, Answer, Kind, Request, Run, frame
from insula.adapters.sandbox.process import Worker
from insula.adapters.sandbox.verdicts import Broken
from insula.engine.failures import NoRoom, StepFailure, Unanswerable
from insula.engine.ports import Activity, Evaluated, Evaluation, HttpRequest
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.turns import Turns

_TOGETHER = 16
"""Requests of one evaluation that are under way at once; the others wait for a turn.

A turn lasts until the worker has taken the answer: code that does not look at its answers asks in
vain for more.
"""
_OUTSTANDING = 1_000
_REQUESTS = 10_000
"""Requests of one evaluation in all. What they cost is the server's time, not the worker's."""
TURN = 50
"""Steps with requests in a turn of the loop, for all evaluations of a pool: a few milliseconds."""
_LEAST_TICK = 0.002
_TOO_LARGE = "what is in the file is too large for memory"


@dataclass(frozen=True, slots=True)
class _More:
    """Requests have come: the evaluation goes on."""


_MORE = _More()
_Outcome = tuple[int, bytes] | Exception | _More


class Conversation:
    """Drives a worker through one evaluation. Use once."""

    def __init__(
        self,
        worker: Worker,
        evaluation: Evaluation,
        activity: Activity,
        fetch_max_bytes: int,
        turns: Turns,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._evaluation = evaluation
        self._activity = activity
        self._fetch_max_bytes = fetch_max_bytes
        self._turns = turns
        self._outcome: asyncio.Future[_Outcome] = self._loop.create_future()
        self._final: _Outcome | None = None
        self._requests: deque[Request] = deque()
        self._asked = 0
        self._outstanding = 0
        self._sent: deque[tuple[asyncio.Future[None], int]] = deque()
        self._held = 0
        self._alone = asyncio.Lock()
        self._sleeps: dict[int, asyncio.TimerHandle] = {}
        self._awake: list[Answer] = []
        self._waking: asyncio.Handle | None = None
        self._verdict: Exception | None = None
        self._deadline = 0.0
        self._cpu_at_start = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> Evaluated:
        """Evaluate.

        When this raises, cancelled or failed by a limit, the worker is dead.

        Raises:
            StepFailure: as the port says.
        """
        self._begin()
        try:
            outcome = await self._outcome
            if isinstance(outcome, _More):
                outcome = await self._with_requests()
            return self._read(outcome)
        except Broken:
            await self._bury()
            raise verdicts.crash(self._worker, self._evaluation.limits) from None
        except asyncio.CancelledError:
            await self._bury()
            raise
        finally:
            self._end()

    def _begin(self) -> None:
        evaluation, limits = self._evaluation, self._evaluation.limits
        data = _encode(evaluation)
        now = self._loop.time()
        self._deadline = now + limits.wall
        self._cpu_at_start = self._worker.cpu_seconds()
        self._timer = self._loop.call_at(now + min(limits.wall, limits.cpu), self._tick)
        bound = limits.output + limits.logs
        if evaluation.waits:
            bound = max(bound, 2 * self._fetch_max_bytes)
        self._worker.death.add_done_callback(self._died)
        self._worker.begin(self._receive, bound + OVERHEAD, data)

    def _end(self) -> None:
        self._worker.end()
        self._worker.death.remove_done_callback(self._died)
        if self._timer is not None:
            self._timer.cancel()
        if self._waking is not None:
            self._waking.cancel()
        for sleep in self._sleeps.values():
            sleep.cancel()

    async def _bury(self) -> None:
        """Kill the worker and wait for its death, whoever cancels: nothing can refuse SIGKILL."""
        self._worker.kill()
        while not self._worker.death.done():
            try:
                await asyncio.wait([self._worker.death])
            except asyncio.CancelledError:
                continue

    def _tick(self) -> None:
        limits, now = self._evaluation.limits, self._loop.time()
        if now >= self._deadline:
            self._condemn(verdicts.wall(limits))
            return
        left = limits.cpu - (self._worker.cpu_seconds() - self._cpu_at_start)
        if left <= 0:
            self._condemn(verdicts.cpu(limits))
            return
        # processor time passes no faster than time: no need to look before
        at = min(self._deadline, now + max(left, _LEAST_TICK))
        self._timer = self._loop.call_at(at, self._tick)

    def _condemn(self, verdict: Exception) -> None:
        """Kill the worker for a reason; the evaluation fails with it once the worker is dead."""
        if self._verdict is None and self._final is None:
            self._verdict = verdict
        self._worker.kill()

    def _settle(self, outcome: _Outcome) -> None:
        if not isinstance(outcome, _More):
            self._final = outcome
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def _died(self, _: asyncio.Future[None]) -> None:
        if self._final is None:
            crash = verdicts.crash(self._worker, self._evaluation.limits)
            self._settle(self._verdict or crash)

    def _receive(self, kind: int, data: bytes) -> None:
        if self._final is not None or self._verdict is not None:
            self._worker.kill()
        elif kind in (Kind.RESULT, Kind.FAILED):
            self._settle((kind, data))
        elif kind == Kind.REQUESTS and self._evaluation.waits and self._queue(data):
            self._settle(_MORE)
        else:
            self._worker.kill()

    def _queue(self, data: bytes) -> bool:
        """Take requests; say whether there may be so many. What they hold is the code's memory."""
        try:
            requests = frames.decode_requests(data)
        except (msgspec.DecodeError, RecursionError):
            return False
        self._requests.extend(requests)
        self._asked += len(requests)
        self._outstanding += len(requests)
        self._held += sum(map(_size, requests))
        if self._held > self._evaluation.limits.memory:
            self._condemn(verdicts.memory(self._evaluation.limits))
        if self._asked > _REQUESTS:
            self._condemn(verdicts.requests(_REQUESTS))
        return self._outstanding + self._untaken() <= _OUTSTANDING

    async def _with_requests(self) -> _Outcome:
        places = asyncio.Semaphore(_TOGETHER)
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []
            try:
                while self._final is None:
                    await self._begin_requests(group, tasks, places)
                    self._describe()
                    await self._more()
            except asyncio.CancelledError:
                self._worker.kill()  # at once, beside the requests that end now
                raise
            for task in tasks:
                task.cancel()
        return self._final

    async def _begin_requests(
        self,
        group: asyncio.TaskGroup,
        tasks: list[asyncio.Task[None]],
        places: asyncio.Semaphore,
    ) -> None:
        tasks[:] = [task for task in tasks if not task.done()]
        while self._requests and self._final is None:
            if (pause := self._turns.take()) is not None:
                await pause
            request = self._requests.popleft()
            if request.kind == "sleep":
                self._sleep(request)
            else:
                tasks.append(group.create_task(self._fulfil(request, places)))

    async def _more(self) -> None:
        """Wait for requests or the end, unless they have come while others had the loop."""
        if not self._requests and self._final is None:
            self._outcome = self._loop.create_future()
            await self._outcome

    def _describe(self) -> None:
        """Say what the code waits for, or that it waits for nothing."""
        sleeps = len(self._sleeps)
        requests = self._outstanding - sleeps
        waits = [_counted(requests, "request"), _counted(sleeps, "sleep")]
        named = " and ".join(wait for wait in waits if wait)
        self._activity.doing = f"waiting for {named}" if named else "evaluating"
        self._activity.since = now_ms()
        if not requests:
            self._activity.effect_possible = False

    def _sleep(self, request: Request) -> None:
        def wake() -> None:
            del self._sleeps[request.id]
            self._awake.append(Answer(request.id))
            if self._waking is None:
                self._waking = self._loop.call_soon(self._wake)

        self._held -= _size(request)
        if request.id in self._sleeps:
            self._worker.kill()
            return
        self._sleeps[request.id] = self._loop.call_later(request.milliseconds / 1000, wake)

    def _wake(self) -> None:
        """Answer the sleeps that have ended together, together."""
        answers, self._awake, self._waking = self._awake, [], None
        self._answer(*answers)

    async def _fulfil(self, request: Request, places: asyncio.Semaphore) -> None:
        find = self._read_files if request.kind == "file" else self._fetch
        size = _size(request)
        async with places, AsyncExitStack() as turn:
            if (pause := self._turns.take()) is not None:
                await pause
            try:
                taken = self._answer(await find(request, turn))
            except Exception as error:
                # Nobody can answer, or it is not the script's affair (the run may have a new
                # owner): the evaluation ends with it.
                self._condemn(error)
                return
            self._held -= size
            del request
            await taken

    async def _fetch(self, request: Request, _: AsyncExitStack) -> Answer:
        fetch = self._evaluation.fetch
        if fetch is None:
            return Answer(request.id, error="fetch is not available here")
        try:
            asked = HttpRequest(
                request.method,
                request.url,
                tuple(frames.decode_headers(request.headers)),
                None if request.body is None else request.body.encode(),
                max_bytes=self._fetch_max_bytes,
            )
            self._activity.effect_possible = True
            response = await fetch(asked)
        except Unanswerable:
            raise
        except StepFailure as failure:
            return Answer(request.id, error=failure.message or "the request failed")
        except (msgspec.DecodeError, UnicodeError):
            return Answer(request.id, error="the request is not valid text")
        return Answer(
            request.id, "", response.status, response.url, response.headers, response.body
        )

    async def _read_files(self, request: Request, turn: AsyncExitStack) -> Answer:
        """Read what fits into a share of the room beside others, and what is larger alone: until
        the worker has taken them, all that is read at once is held here."""
        room = self._evaluation.limits.memory // 4
        try:
            return await self._read_file(request, room // _TOGETHER)
        except NoRoom:
            await turn.enter_async_context(self._alone)
        try:
            return await self._read_file(request, room)
        except NoRoom:
            return Answer(request.id, error=_TOO_LARGE)

    async def _read_file(self, request: Request, room: int) -> Answer:
        """Read what fits into the room.

        Raises:
            NoRoom: it does not.
        """
        read = self._evaluation.read_file
        if read is None or not request.aspect:
            return Answer(request.id, error="files cannot be read here")
        try:
            asked = msgspec.json.decode(request.file)
            found = json.encode(await read(request.aspect, asked, room))
        except (Unanswerable, NoRoom):
            raise
        except StepFailure as failure:
            return Answer(request.id, error=failure.message or "the file cannot be read")
        except (msgspec.DecodeError, json.InvalidJson, UnicodeError, RecursionError):
            return Answer(request.id, error="the file is not valid JSON")
        if len(found) > room:
            raise NoRoom
        return Answer(request.id, body=found, value=True)

    def _answer(self, *answers: Answer) -> asyncio.Future[None]:
        number = len(answers)
        self._outstanding -= number
        self._describe()
        try:
            data = frame(Kind.ANSWERS, answers)
        except UnicodeError:
            lost = [Answer(answer.id, error="the answer is not valid text") for answer in answers]
            data = frame(Kind.ANSWERS, lost)
        taken = self._worker.send(data)
        self._sent.append((taken, number))
        return taken

    def _untaken(self) -> int:
        """Count the answers that the worker has yet to take."""
        while self._sent and self._sent[0][0].done():
            self._sent.popleft()
        return sum(number for _, number in self._sent)

    def _read(self, outcome: _Outcome) -> Evaluated:
        if isinstance(outcome, Exception):
            raise outcome
        assert not isinstance(outcome, _More)
        kind, data = outcome
        try:
            if kind == Kind.FAILED:
                failed = frames.decode_failed(data)
                if failed.retire or failed.code != "script":
                    self._worker.kill()
                raise verdicts.failed(self._evaluation, failed)
            result = frames.decode_result(data)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise Broken(str(error)) from error
        outputs = result.outputs
        limits = self._evaluation.limits
        if (
            len(outputs) != len(self._evaluation.scripts)
            or sum(map(len, filter(None, outputs))) > limits.output
        ):
            raise Broken("outputs")
        checked = tuple(
            None if output is None else verdicts.checked_output(output) for output in outputs
        )
        logs = verdicts.checked_logs(result.logs, limits)
        if result.retire:
            self._worker.kill()
        return Evaluated(checked, logs)


def _size(request: Request) -> int:
    """Count the characters that a request holds, for as long as it is not answered."""
    return len(request.url) + len(request.headers) + len(request.body or "") + len(request.file)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


def _encode(evaluation: Evaluation) -> bytes:
    limits = evaluation.limits
    texts = [bytes(text) for text in evaluation.scope.values()]
    if sum(map(len, texts)) > limits.memory:
        raise verdicts.memory(limits)
    run = Run(
        evaluation.scripts,
        tuple(evaluation.scope),
        texts,
        evaluation.absent,
        evaluation.waits,
        limits.memory,
        limits.output,
        limits.logs,
        evaluation.asked,
    )
    try:
        return frame(Kind.RUN, run)
    except UnicodeError:
        raise StepFailure(
            "The script holds half a character (a lone surrogate).", "script"
        ) from None
