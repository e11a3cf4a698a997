"""``insula runs``: list, show, cancel and replay."""

import json

from insula.cli.failures import ExitCode

from .conftest import Invoke
from .fake_server import Answer, FakeServer, event

RUN = {
    "id": "run_1",
    "status": "CANCELLED",
    "workflow_id": "work_1",
    "started_at": "2026-01-31T12:00:00.000Z",
    "ended_at": "2026-01-31T12:00:01.000Z",
    "output": {
        "wait": {"key": "wait", "type": "code", "status": "CANCELLED", "start": 1, "end": 9}
    },
    "cancellation": {
        "requested_at": "2026-01-31T12:00:00.996Z",
        "stopped_at": "2026-01-31T12:00:01.000Z",
        "interrupted": [
            {"key": "wait", "doing": "running code", "for_ms": 812, "effect_possible": False},
            {"key": "call", "doing": "waiting", "for_ms": 3, "effect_possible": True},
        ],
    },
}


def test_list_filters_and_pages(server: FakeServer, invoke: Invoke) -> None:
    server.on("GET", "/apps/c/runs", Answer([RUN]))
    outcome = invoke("runs", "list", "--status", "running", "--workflow", "work_1", "--take", "5")
    assert outcome.code == ExitCode.OK
    assert "run_1" in outcome.out
    assert server.asked[0].query == {
        "workflow_id": ["work_1"],
        "status": ["RUNNING"],
        "take": ["5"],
        "page": ["1"],
    }
    assert json.loads(invoke("runs", "list", "--json").out) == [RUN]
    assert invoke("runs", "list", "--workflow", "a/b").code == ExitCode.USAGE


def test_show(server: FakeServer, invoke: Invoke) -> None:
    server.on("GET", "/apps/c/workflows/work_1/runs/run_1", Answer(RUN))
    outcome = invoke("runs", "show", "work_1", "run_1")
    assert outcome.code == ExitCode.OK
    assert "run_1  CANCELLED" in outcome.out
    assert "8 ms" in outcome.out
    assert invoke("runs", "show", "work_1", "run_2").code == ExitCode.NOT_FOUND


def test_show_says_why_there_are_no_steps(server: FakeServer, invoke: Invoke) -> None:
    bare = {**RUN, "status": "COMPLETED", "input": None, "output": {}, "result": None}
    shown = {
        "erased": (bare, "Its data has been erased."),
        "unbegun": ({**bare, "status": "CANCELLED", "input": {}}, "No step had started."),
        "waiting": ({**bare, "status": "PENDING", "ended_at": None}, "No step has started."),
    }
    for run_id, (run, words) in shown.items():
        server.on("GET", f"/apps/c/workflows/work_1/runs/{run_id}", Answer(run))
        outcome = invoke("runs", "show", "work_1", run_id)
        assert words in outcome.out + outcome.err
    server.on("POST", "/apps/c/workflows/work_1/runs/erased/cancel", Answer(bare))
    outcome = invoke("runs", "cancel", "work_1", "erased")
    assert outcome.err == "The run had already ended: COMPLETED. Its data has been erased.\n"


def test_cancel_tells_what_was_interrupted(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", "/apps/c/workflows/discover/work_1/runs/run_1/cancel", Answer(RUN))
    outcome = invoke("runs", "cancel", "work_1", "run_1", "--discover")
    assert outcome.code == ExitCode.OK
    assert outcome.out == "run_1  CANCELLED\n"
    assert "Everything had stopped 4 ms after the server was asked." in outcome.err
    assert "  wait: running code for 812 ms\n" in outcome.err
    assert "  call: waiting for 3 ms; its effect may have happened" in outcome.err
    assert server.asked[0].query == {"verbose": ["all"]}


def test_cancel_of_a_finished_run_says_so(server: FakeServer, invoke: Invoke) -> None:
    finished = {**RUN, "status": "COMPLETED"}
    server.on("POST", "/apps/c/workflows/work_1/runs/run_1/cancel", Answer(finished))
    outcome = invoke("runs", "cancel", "work_1", "run_1")
    assert outcome.code == ExitCode.OK
    assert "already ended: COMPLETED" in outcome.err


def test_replay_follows_the_new_run(server: FakeServer, invoke: Invoke) -> None:
    new = {"id": "run_2", "status": "COMPLETED", "output": {}, "result": "done"}
    path = "/apps/c/workflows/work_1/runs/run_1/replay"
    server.on("POST", path, Answer(pieces=[event("run", new, 0)]))
    outcome = invoke("runs", "replay", "work_1", "run_1", "--step", "wait")
    assert (outcome.code, outcome.out) == (ExitCode.OK, '"done"\n')
    assert server.asked[0].body == {"stepKey": "wait", "stream": True}
