"""Carries the tests of this installation: gives those that wait their runs, judges those whose
runs have ended. What is to be done stands in the rows, so that nothing is lost with a process.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable
from functools import partial

import structlog

from insula.errors import InsulaError, Unavailable
from insula.kit.clock import now_ms
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.workflow_tests import repository
from insula.workflow_tests.begin import begin
from insula.workflow_tests.judge import judge
from insula.workflow_tests.rows import FAILED, RUNNING, Underway, Verdict, WorkflowTest

_log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
"""How often it is looked what other nodes, or an earlier process, have left to be done."""
_LEFT_MS = 5_000
"""How long a node leaves to another what that one knows of already."""
_LOOK_SECONDS = 0.5
_DEFECT = "Internal error; the server's log has more"


class TestRunner:
    """Of one process. ``run`` is its task."""

    __test__ = False  # no test of ours

    def __init__(self, services: RunServices) -> None:
        self._services = services
        self._wake = asyncio.Event()
        self._turn = asyncio.Event()
        self._mine: set[str] = set()
        """Tests that were asked for here, and runs of tests that ended here."""
        self._working: dict[str, asyncio.Task[None]] = {}
        self._after = ""

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._round(group)
                except InsulaError as error:
                    _log.warning("tests.round_failed", reason=error.message)
                except Exception:  # it comes round again
                    _log.exception("tests.round_broke")
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # it is time
                self._wake.clear()

    def asked(self, test_ids: Iterable[str]) -> None:
        """Say that tests were let wait, or are to be judged again."""
        self._mine.update(test_ids)
        self.tell()
        self._wake.set()

    def tell(self) -> None:
        """Let those look again who wait for a test."""
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    async def changed(self) -> None:
        """Wait until something may have changed; not for long: other nodes do so, too."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._turn.wait()
        except TimeoutError:
            pass  # look again

    async def settled(self, test_id: str) -> WorkflowTest | None:
        """Wait until a test is not RUNNING; return it, or ``None`` if it is gone.

        Raises:
            Unavailable: the server is stopping; the test goes on without it.
        """
        while True:
            waiting = asyncio.ensure_future(self.changed())
            try:
                query = partial(repository.find_any, test_id=test_id)
                test = await self._services.database.read(query)
                if test is None or test.status != RUNNING:
                    return test
                if self._services.draining:
                    raise Unavailable("The server is stopping; the test goes on", retry_after=2)
                await waiting
            finally:
                waiting.cancel()

    async def drop(self, test_ids: Iterable[str]) -> None:
        """Stop judging tests that are cancelled, and come back when it has stopped."""
        tasks = [task for each in test_ids if (task := self._working.get(each)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def ended(self, row: RunRow) -> None:
        """Hear of a run whose end was stored here: to be called with each."""
        if row.origin == "TEST":
            self._mine.add(row.id)
            self._wake.set()

    async def _round(self, group: asyncio.TaskGroup) -> None:
        if self._services.draining:
            return
        query = partial(repository.turns, after=self._after)
        found, self._after, whole = await self._services.database.read(query)
        if whole:
            self._mine &= {each.id for each in found} | {each.run_id or "" for each in found}
        busy = Counter(each.workflow_id for each in found if each.run_id is not None)
        for each in found:
            if each.id in self._working or not self._due(each):
                continue
            if each.run_id is not None:
                work: Awaitable[bool] = self._judge(each)
            elif busy[each.workflow_id] < repository.AT_ONCE:
                busy[each.workflow_id] += 1
                work = begin(self._services, each.id)
            else:
                continue
            task = self._working[each.id] = group.create_task(self._work(each, work))
            # One that is cancelled before its first step has no end of its own.
            task.add_done_callback(partial(self._over, each.id))

    def _due(self, each: Underway) -> bool:
        """Say whether something is to be done about a test, and by this process."""
        if each.run_id is not None and not each.lost and each.run_ended_at is None:
            return False
        if self._services.cluster is None or {each.id, each.run_id} & self._mine:
            return True
        since = max(each.updated_at, each.run_ended_at or 0)
        return since < now_ms() - _LEFT_MS

    async def _work(self, each: Underway, work: Awaitable[bool]) -> None:
        moved = False
        try:
            moved = await work
        except InsulaError as error:  # tried again in the next round
            _log.warning("test.not_done", test_id=each.id, reason=error.message)
        except Exception:  # a defect of ours must end in a failed test, not in a stuck one
            _log.exception("test.broke", test_id=each.id)
            await self._give_up(each)
        finally:
            self._working.pop(each.id, None)
            self.tell()
        if moved:
            self._wake.set()

    def _over(self, test_id: str, task: asyncio.Task[None]) -> None:
        if self._working.get(test_id) is task:
            del self._working[test_id]
            self.tell()

    async def _judge(self, each: Underway) -> bool:
        query = partial(repository.find_any, test_id=each.id)
        test = await self._services.database.read(query)
        if test is None or test.status != RUNNING or test.run_id != each.run_id:
            return False
        verdict = await judge(self._services, test)
        await self._settle(test.id, test.run_id, test.updated_at, verdict)
        return True

    async def _give_up(self, each: Underway) -> None:
        try:
            verdict = Verdict(FAILED, error=_DEFECT)
            await self._settle(each.id, each.run_id, each.updated_at, verdict)
        except InsulaError as error:  # the next round comes here again
            _log.warning("test.not_done", test_id=each.id, reason=error.message)

    async def _settle(self, test_id: str, run_id: str | None, seen: int, verdict: Verdict) -> None:
        unit = partial(
            repository.settle, test_id=test_id, run_id=run_id, seen=seen, verdict=verdict
        )
        await self._services.database.write(unit)
