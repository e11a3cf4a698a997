"""The pool: cancels, limits, fairness, replacement, and that nothing is left behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import structlog

from insula.adapters.sandbox import forker
from insula.adapters.sandbox.pool import SandboxPool
from insula.adapters.sandbox.process import Worker
from insula.engine.failures import StepFailure
from insula.engine.ports import Evaluated, Evaluation, HttpRequest, HttpResponse, Lane, Limits

from .conftest import MIB, SMALL, activity, descriptors, evaluation, is_running, until

LONG = Limits(cpu=20, wall=20)


def start(pool: SandboxPool, wanted: Evaluation) -> "asyncio.Task[Evaluated]":
    return asyncio.ensure_future(pool.evaluate(wanted, activity()))


async def busy(pool: SandboxPool, number: int) -> None:
    await until(lambda: pool.stats().busy == number)


async def number(pool: SandboxPool, script: str, **others: object) -> object:
    done = await pool.evaluate(evaluation(script, limits=LONG, **others), activity())  # type: ignore[arg-type]  # passed through
    return json.loads(bytes(done.outputs[0] or b"null"))


async def end(*tasks: "asyncio.Task[Evaluated]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_limits_name_value_and_setting(pool: SandboxPool, lane: Lane) -> None:
    for script, limits, code, words in (
        ("for (;;) {}", Limits(cpu=0.05), "limit_cpu", "0.05 s (limits.cpu)"),
        ("await util.sleep(9999)", Limits(wall=0.05), "limit_wall", "0.05 s (limits.wall)"),
        ("'x'.repeat(200)", Limits(output=100), "limit_output", "100 bytes (limits.output)"),
        ("console.log('x'.repeat(200))", Limits(logs=100), "limit_logs", "100 bytes (limits.logs)"),
        (
            "const a = []; for (;;) a.push(new Array(1e5).fill(1.5))",
            Limits(memory=16 * MIB),
            "limit_memory",
            "16 MiB (limits.memory)",
        ),
    ):
        with pytest.raises(StepFailure) as caught:
            await pool.evaluate(
                evaluation(script, lane=lane, limits=limits, waits=True), activity()
            )
        assert caught.value.code == code, script
        assert words in caught.value.message


async def test_sleeping_costs_no_processor_time(pool: SandboxPool) -> None:
    limits = Limits(cpu=0.05, wall=10)
    script = "await util.sleep(150); return 1"
    done = await pool.evaluate(evaluation(script, limits=limits, waits=True), activity())
    assert done.outputs[0] is not None


async def test_a_cancel_waits_for_the_death(pool: SandboxPool, lane: Lane) -> None:
    task = start(pool, evaluation("for (;;) {}", lane=lane, limits=LONG))
    await busy(pool, 1)
    (worker,) = [worker for worker in pool._workers if worker.of == ("app_a", "app_a")]
    await until(lambda: worker.ready)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.gone
    assert not is_running(worker.pid)


async def test_a_cancel_while_it_waits_ends_its_requests_too(pool: SandboxPool) -> None:
    ended = []
    begun = asyncio.Event()

    async def fetch(request: HttpRequest) -> HttpResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request.url)
        raise AssertionError

    doing = activity()
    task = asyncio.ensure_future(
        pool.evaluate(
            evaluation("await fetch('http://x/')", waits=True, fetch=fetch, limits=LONG), doing
        )
    )
    await begun.wait()
    assert doing.effect_possible
    assert doing.doing == "waiting for 1 request"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["http://x/"]
    assert await number(pool, "1") == 1


async def test_what_it_does_after_an_answer_is_told(pool: SandboxPool) -> None:
    async def fetch(request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), b"", request.url)

    doing = activity()
    script = "await fetch('http://x/'); for (;;) {}"
    asked = evaluation(script, waits=True, fetch=fetch, limits=LONG)
    doing.doing = "waiting to be told"
    task = asyncio.ensure_future(pool.evaluate(asked, doing))
    await until(lambda: doing.doing == "evaluating")
    assert not doing.effect_possible
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_second_cancel_does_not_hurry_the_first(pool: SandboxPool) -> None:
    task = start(pool, evaluation("for (;;) {}", limits=LONG))
    await busy(pool, 1)
    (worker,) = [worker for worker in pool._workers if worker.of]
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert worker.gone


async def test_cancelled_while_queued(pool: SandboxPool) -> None:
    tasks = [start(pool, evaluation("for (;;) {}", limits=LONG)) for _ in range(6)]
    await busy(pool, 2)
    assert pool.stats().waiting == 4
    await end(*tasks)
    assert (pool.stats().busy, pool.stats().waiting) == (0, 0)
    assert await number(pool, "1") == 1


async def test_a_worker_serves_one_app_for_life(pool: SandboxPool) -> None:
    await number(pool, "1", app_id="app_a")
    (first,) = [worker for worker in pool._workers if worker.of == ("app_a", "app_a")]
    await number(pool, "1", app_id="app_a")
    assert first.served == 2
    for name in ("b", "c", "d", "e", "f"):
        await number(pool, "1", app_id=f"app_{name}")
    assert first.served == 2
    assert pool.stats().alive <= 5
    assert first.killed


async def test_the_code_of_another_app_has_a_worker_of_its_own(pool: SandboxPool) -> None:
    own = {"app_id": "app_a"}
    theirs = {"app_id": "app_a", "code_app_id": "app_b"}
    await number(pool, "1", **own)
    await number(pool, "1", **theirs)
    await number(pool, "1", **own)
    await number(pool, "1", **theirs)
    await number(pool, "1", app_id="app_b")
    served = {worker.of: worker.served for worker in pool._workers if worker.of}
    assert served == {("app_a", "app_a"): 2, ("app_a", "app_b"): 2, ("app_b", "app_b"): 1}


async def test_the_share_is_the_callers_whosever_code_it_runs(pool: SandboxPool) -> None:
    sleeper = "await util.sleep(60000)"
    hog = [
        start(pool, evaluation(sleeper, code_app_id=f"app_{n}", waits=True, limits=LONG))
        for n in range(6)
    ]
    await busy(pool, 2)  # half of the places
    assert pool.stats().waiting == 4
    assert await number(pool, "2", app_id="app_b") == 2
    await end(*hog[:2])
    await busy(pool, 2)  # and the next come, though no worker was ever theirs
    await end(*hog)


async def test_shares_leave_room_for_neighbours_and_conditions(pool: SandboxPool) -> None:
    sleeper = "await util.sleep(60000)"
    hog = [start(pool, evaluation(sleeper, waits=True, limits=LONG)) for _ in range(9)]
    await busy(pool, 2)  # 4 places, half of them for one app
    assert await number(pool, "2", app_id="app_b") == 2
    assert await number(pool, "3", condition=True) == 3
    assert await number(pool, "3", lane="v8", condition=True) == 3
    more = start(pool, evaluation(sleeper, app_id="app_b", waits=True, limits=LONG))
    await busy(pool, 3)
    assert await number(pool, "4", app_id="app_c", condition=True) == 4
    assert await number(pool, "4", app_id="app_b", condition=True) == 4
    await end(more, *hog)


async def test_a_thousand_that_only_wait(pool: SandboxPool) -> None:
    sleeper = "await util.sleep(60000)"
    tasks = [start(pool, evaluation(sleeper, waits=True, limits=LONG)) for _ in range(1000)]
    await busy(pool, 2)
    assert pool.stats().waiting == 998
    assert pool.stats().alive <= 4
    began = time.perf_counter()
    assert await number(pool, "1", app_id="app_b") == 1
    assert await number(pool, "1", condition=True) == 1
    assert time.perf_counter() - began < 50  # and not behind those that wait for a minute
    await end(*tasks)
    assert (pool.stats().busy, pool.stats().waiting) == (0, 0)
    assert await number(pool, "1") == 1


async def test_neighbours_run_on_beside_attacks(pool: SandboxPool) -> None:
    script = "let n = 0; for (let i = 0; i < 10; i++) { await util.sleep(5); n++ } return n"
    neighbour = start(pool, evaluation(script, app_id="app_b", waits=True, limits=LONG))
    for attack in ("for (;;) {}", "let s = 'x'; for (;;) s += s", "(function f() { f() })()"):
        with pytest.raises(StepFailure):
            await pool.evaluate(evaluation(attack, limits=SMALL), activity())
    done = await neighbour
    assert bytes(done.outputs[0] or b"") == b"10"


async def test_a_dead_worker_fails_its_evaluation_only(pool: SandboxPool, lane: Lane) -> None:
    task = start(pool, evaluation("for (;;) {}", lane=lane, limits=LONG))
    await busy(pool, 1)
    (worker,) = [worker for worker in pool._workers if worker.of]
    os.kill(worker.pid, signal.SIGSEGV)
    with pytest.raises(StepFailure) as caught:
        await task
    assert (caught.value.code, "SIGSEGV" in caught.value.message) == ("engine_crash", True)
    assert await number(pool, "1", lane=lane) == 1


async def test_a_dead_zygote_is_started_again(pool: SandboxPool) -> None:
    task = start(pool, evaluation("for (;;) {}", limits=LONG))
    await busy(pool, 1)
    zygote = pool._forkers["quickjs"]
    os.kill(zygote.pid, signal.SIGKILL)
    with pytest.raises(StepFailure) as caught:
        await task
    assert caught.value.code == "engine_crash"
    assert await number(pool, "1") == 1
    assert pool._forkers["quickjs"] is not zygote


async def test_nothing_leaks(pool: SandboxPool) -> None:
    await number(pool, "1")
    before = descriptors()
    for _ in range(30):
        with pytest.raises(StepFailure):
            await pool.evaluate(evaluation("for (;;) {}", limits=Limits(cpu=0.002)), activity())
    await until(lambda: not pool._asked("quickjs") and len(pool._workers) <= 2)
    assert descriptors() <= before + 4
    assert pool.stats().killed == 30


async def test_idle_workers_and_v8_are_let_go() -> None:
    pool = SandboxPool(maximum=4, warm=1, idle_seconds=0)
    await pool.start()
    try:
        await number(pool, "1", lane="v8")
        await number(pool, "1")
        pool._sweep()
        await until(lambda: all(worker.of is None for worker in pool._workers))
        pool._sweep()
        assert "v8" not in pool._forkers
        assert await number(pool, "1", lane="v8") == 1
    finally:
        await pool.close()


async def test_a_grown_worker_is_replaced(pool: SandboxPool) -> None:
    await number(pool, "1")
    (worker,) = [worker for worker in pool._workers if worker.of]
    await number(pool, "'x'.repeat(6e7).length")
    assert worker.killed
    assert await number(pool, "1") == 1


async def test_nobody_waits_for_a_lane_that_does_not_come_up(
    pool: SandboxPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(lane: Lane) -> tuple["subprocess.Popen[bytes]", socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.close()
        return subprocess.Popen(["true"]), ours

    with monkeypatch.context() as patched:
        patched.setattr(forker, "_spawn", spawn)
        with pytest.raises(StepFailure, match="no v8 worker") as caught:
            await number(pool, "1", lane="v8")
        assert caught.value.code == "engine_crash"
        assert await number(pool, "1") == 1
    assert await number(pool, "1", lane="v8") == 1


async def test_one_that_is_born_while_it_closes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = SandboxPool(maximum=4, warm=1)
    await pool.start()
    closing, born = forker.Forker.close, list[Worker]()
    born_with = pool._born

    def birth(worker: Worker) -> None:
        born_with(worker)
        born.append(worker)

    async def close_after_a_birth(self: forker.Forker) -> None:
        object.__setattr__(self._listener, "born", birth)
        self.fork()
        await until(lambda: bool(born))
        await closing(self)

    monkeypatch.setattr(forker.Forker, "close", close_after_a_birth)
    await pool.close()
    assert [worker.death.done() for worker in born] == [True]
    assert pool.stats().alive == 0


async def test_closed_it_refuses() -> None:
    pool = SandboxPool(maximum=2)
    await pool.start()
    task = start(pool, evaluation("for (;;) {}", limits=LONG))
    await busy(pool, 1)
    await pool.close()
    with pytest.raises(StepFailure):
        await task
    with pytest.raises(StepFailure, match="not running"):
        await number(pool, "1")


SERVER = """
import asyncio, sys
from insula.adapters.sandbox import forker
from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.ports import Activity, Evaluation, Limits
async def main():
    pool = SandboxPool(maximum=4, warm=1)
    await pool.start()
    tasks = [asyncio.ensure_future(pool.evaluate(
        Evaluation("app_a", (script,), {}, lane=lane, waits=True), Activity("", 0)))
        for script, lane in (("for (;;) {}", "quickjs"), ("for (;;) {}", "v8"))]
    while sum(w.ready is not None and w.of is not None for w in pool._workers) < 2:
        await asyncio.sleep(.001)
    print(*[w.pid for w in pool._workers], *[f.pid for f in pool._forkers.values()], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_everything_dies_with_the_server() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) >= 4
        assert all(map(is_running, pids))
        server.kill()
    until = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.005)
    assert not [pid for pid in pids if is_running(pid)]


WITHOUT_LANDLOCK = """
import insula.adapters.sandbox.landlock as landlock
import insula.adapters.sandbox.zygote as zygote

def restrict(libc):
    raise OSError("the kernel has no Landlock")

landlock.restrict = restrict
zygote.main()
"""


async def test_a_missing_wall_is_said_once_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without Landlock, whichever worker finds out, and however many do."""
    start_process = subprocess.Popen

    def elsewhere(command: list[str], **others: object) -> object:
        lane, server = command[-2:]
        return start_process([sys.executable, "-I", "-c", WITHOUT_LANDLOCK, lane, server], **others)  # type: ignore[call-overload]  # passed through

    monkeypatch.setattr(forker.subprocess, "Popen", elsewhere)
    pool = SandboxPool(maximum=4, warm=2)
    with structlog.testing.capture_logs() as logged:
        await pool.start()
        await until(lambda: pool.stats().alive == 2)
    assert await number(pool, "1 + 1") == 2
    await pool.close()
    assert ("landlock", "the kernel has no Landlock") in pool.stats().missing
    told = [entry for entry in logged if entry.get("wall") == "landlock"]
    assert [(entry["event"], entry["log_level"]) for entry in told] == [
        ("sandbox_wall_missing", "warning")
    ]
