"""``insula run`` and ``insula runs watch``: followed, taken up again, cancelled on Ctrl-C."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from insula.cli import follow
from insula.cli.failures import ExitCode

from .conftest import Invoke
from .fake_server import Answer, Asked, FakeServer, event

RUNS = "/apps/c/workflows/work_1/runs"
RUNNING = {"id": "run_1", "status": "RUNNING", "output": {}}
STEP = {"key": "add", "type": "code", "status": "RUNNING", "start": 1000}
STEP_END = {**STEP, "status": "COMPLETED", "end": 1250, "output": 3}


def ended(status: str, **more: object) -> dict[str, object]:
    times = {"started_at": "2026-01-31T12:00:00.000Z", "ended_at": "2026-01-31T12:00:01.500Z"}
    return {"id": "run_1", "status": status, "output": {"add": STEP_END}, **times, **more}


def stream(*pieces: bytes) -> Answer:
    return Answer(pieces=pieces)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(tries: int) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(follow, "growing_pause", at_once)


def test_progress_goes_to_stderr_and_the_result_to_stdout(
    server: FakeServer, invoke: Invoke
) -> None:
    server.on(
        "POST",
        RUNS,
        stream(
            event("run", RUNNING, 0),
            b": still here\n\n",
            event("step", STEP, 1),
            event("step", STEP_END, 2),
            event("run", ended("COMPLETED", result={"sum": 3}), 3),
        ),
    )
    outcome = invoke("run", "work_1", "--input", '{"a": 1}', "--version", "2", "--identifier", "x")
    assert outcome.code == ExitCode.OK
    assert json.loads(outcome.out) == {"sum": 3}
    assert outcome.err.splitlines() == [
        "RUNNING    add",
        "COMPLETED  add  250 ms",
        "COMPLETED after 1.5 s",
    ]
    (asked,) = server.asked
    assert asked.body == {
        "input": {"a": 1},
        "workflow_version_id": 2,
        "identifier": "x",
        "stream": True,
    }
    assert len(asked.headers["idempotency-key"]) == 36


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("COMPLETED", ExitCode.OK),
        ("SKIPPED", ExitCode.OK),
        ("FAILED", ExitCode.FAILED),
        ("CANCELLED", ExitCode.CANCELLED),
    ],
)
def test_the_exit_code_tells_how_it_ended(
    server: FakeServer, invoke: Invoke, status: str, code: ExitCode
) -> None:
    run = ended(status, error="No luck", result=None)
    server.on("POST", RUNS, stream(event("run", RUNNING, 0), event("run", run, 1)))
    outcome = invoke("run", "work_1", "--json")
    assert outcome.code == code
    assert json.loads(outcome.out) == run
    assert outcome.err == ""
    assert ("No luck" in invoke("run", "work_1").err) == (status == "FAILED")


def test_stream_prints_every_event_as_a_line(server: FakeServer, invoke: Invoke) -> None:
    server.on(
        "POST",
        "/apps/c/workflows/discover/work_1/runs",
        stream(event("run", RUNNING, 0), event("run", ended("COMPLETED"), 1)),
    )
    lines = invoke("run", "work_1", "--stream", "--discover").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["run", "run"]
    assert json.loads(lines[1])["data"]["status"] == "COMPLETED"


def test_background_prints_the_id(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", RUNS, Answer({"id": "run_1", "status": "PENDING"}))
    assert invoke("run", "work_1", "--background").out == "run_1\n"
    assert server.asked[0].body == {"background": True}
    assert invoke("run", "work_1", "--background", "--stream").code == ExitCode.USAGE


def test_a_broken_stream_is_taken_up_where_it_ended(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", RUNS, stream(event("run", RUNNING, 0), event("step", STEP, 1)))
    server.on("GET", f"{RUNS}/run_1", Answer(RUNNING))
    server.on(
        "GET",
        f"{RUNS}/run_1/stream",
        stream(event("step", STEP_END, 2), event("run", ended("COMPLETED", result=1), 3)),
    )
    outcome = invoke("run", "work_1")
    assert (outcome.code, outcome.out) == (ExitCode.OK, "1\n")
    assert server.asked[-1].headers["last-event-id"] == "1"


def test_a_run_that_ended_behind_a_broken_stream_is_read(
    server: FakeServer, invoke: Invoke
) -> None:
    server.on("POST", RUNS, stream(event("run", RUNNING, 0)))
    server.on("GET", f"{RUNS}/run_1", Answer(ended("COMPLETED", result=1)))
    assert invoke("run", "work_1").out == "1\n"


def test_a_server_that_stays_away_leaves_word_how_to_go_on(
    server: FakeServer, invoke: Invoke
) -> None:
    server.on("POST", RUNS, stream(event("run", RUNNING, 0)))
    server.on("GET", f"{RUNS}/.*", Answer({"message": "Restarting"}, 503))
    outcome = invoke("run", "work_1")
    assert outcome.code == ExitCode.UNREACHABLE
    assert "insula runs watch work_1 run_1" in outcome.err
    assert len(server.asked) < 20


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_cancels_the_run_and_waits_for_its_end(server: FakeServer, invoke: Invoke) -> None:
    cancelled = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield event("run", RUNNING, 0)
        yield event("step", STEP, 1)
        interrupt()
        assert cancelled.wait(10)
        yield event("run", ended("CANCELLED"), 2)

    def cancel(asked: Asked) -> Answer:
        cancelled.set()
        return Answer(ended("CANCELLED"))

    server.on("POST", RUNS, lambda asked: Answer(pieces=pieces()))
    server.on("POST", f"{RUNS}/run_1/cancel", cancel)
    outcome = invoke("run", "work_1")
    assert outcome.code == ExitCode.INTERRUPTED
    assert cancelled.is_set()
    assert "CANCELLED" in outcome.err


@pytest.mark.parametrize("command", [("run", "work_1"), ("runs", "watch", "work_1", "run_1")])
def test_the_run_goes_on_when_it_is_only_watched_or_left_alone(
    server: FakeServer, invoke: Invoke, command: tuple[str, ...]
) -> None:
    over = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield event("run", RUNNING, 0)
        interrupt()
        over.wait(10)

    def cancel(asked: Asked) -> Answer:
        interrupt()
        over.wait(10)
        return Answer(ended("CANCELLED"))

    server.on("POST", RUNS, lambda asked: Answer(pieces=pieces()))
    server.on("GET", f"{RUNS}/run_1/stream", lambda asked: Answer(pieces=pieces()))
    server.on("POST", f"{RUNS}/run_1/cancel", cancel)
    outcome = invoke(*command)
    over.set()
    assert outcome.code == ExitCode.INTERRUPTED
    assert "insula runs cancel work_1 run_1" in outcome.err


def test_input_is_checked_before_anything_is_sent(
    server: FakeServer, invoke: Invoke, tmp_path: Path
) -> None:
    assert invoke("run", "work_1", "--input", "{").code == ExitCode.USAGE
    assert invoke("run", "../../x").code == ExitCode.USAGE
    assert invoke("run", "work_1", "--input-file", f"a={tmp_path}").code == ExitCode.USAGE
    assert server.asked == []
    server.on("POST", RUNS, stream(event("run", ended("COMPLETED", result=1), 0)))
    assert invoke("run", "work_1", "--input", "@-", stdin='{"a": 2}').code == ExitCode.OK
    assert server.asked[0].body["input"] == {"a": 2}
