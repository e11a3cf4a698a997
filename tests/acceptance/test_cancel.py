"""Cancelling, whatever the run is doing: the answer comes when everything has stopped."""

import asyncio
import itertools
from typing import Any

import pytest

from tests.acceptance.conftest import Serve
from tests.acceptance.harness import Answer, Caller, Clients, Event, Served, clients, shaped
from tests.acceptance.kinds import FAMILY, KINDS, Kind, http, push_family
from tests.acceptance.loopback import Loopback
from tests.acceptance.processes import family, processor_seconds

_numbers = itertools.count()


class Stage:
    """An owner, a stranger who uses the owner's workflows, and the loopback."""

    def __init__(self, served: Served, loopback: Loopback, owner: Caller, guest: Caller) -> None:
        self.served = served
        self.loopback = loopback
        self.owner = owner
        self.guest = guest


@pytest.fixture
async def stage(served: Served, loopback: Loopback, callers: Clients) -> Stage:
    owner, guest = await callers.app("Acme"), await callers.app("Globex")
    return Stage(served, loopback, owner, guest)


@pytest.mark.parametrize("through", ["workflows", "workflows/discover"])
@pytest.mark.parametrize("kind", [*KINDS, FAMILY], ids=lambda kind: kind.name)
async def test_a_run_that_is_busy_stops(stage: Stage, kind: Kind, through: str) -> None:
    url = stage.loopback.url
    if kind is FAMILY:
        workflow_id = await push_family(stage.owner, url)
    else:
        workflow_id = await stage.owner.push(kind.steps(url))
    await stage.owner.publish(workflow_id)
    caller = stage.owner if through == "workflows" else stage.guest
    path = f"{through}/{workflow_id}/runs"
    stopped: dict[str, int] = {}
    for _ in range(kind.samples):
        tag = f"{kind.name}-{next(_numbers)}"
        stopped[tag] = await _start_and_cancel(stage, caller, path, kind, tag)
    await _nothing_more_happens(stage, stopped)


async def _start_and_cancel(stage: Stage, caller: Caller, path: str, kind: Kind, tag: str) -> int:
    """Cancel one run in the midst; return how many of its requests there were by then."""
    async with caller.stream(path, {"input": {"tag": tag}, "stream": True}) as stream:
        run_id = await stream.run_id()
        await kind.reached(stream, stage.loopback, tag)
        answer = await caller.ask("POST", f"{path}/{run_id}/cancel?verbose=all")
        await stage.loopback.barrier()
        seen = len(stage.loopback.of(tag))
        run = _check_answer(answer, kind)
        events = await stream.to_the_end()
    if kind.hangs:
        await stage.loopback.left(tag)
    plain = await caller.ok("GET", f"{path}/{run_id}")
    _check_events(events, plain)
    assert await caller.ok("GET", f"{path}/{run_id}?verbose=all") == run
    assert await caller.ok("POST", f"{path}/{run_id}/cancel?verbose=all") == run
    return seen


def _check_answer(answer: Answer, kind: Kind) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    run: dict[str, Any] = answer.json()
    shaped(run, "RunSchema")
    assert run["status"] == "CANCELLED"
    assert run["ended_at"] is not None
    output = run["output"]
    assert output["first"]["status"] == "COMPLETED"
    assert output["first"]["output"].keys() == {"tag"}
    for key in kind.interrupted:
        assert output[key]["status"] == "CANCELLED", output[key]
        assert output[key]["end"] >= output[key]["start"]
    assert "later" not in output
    receipt = run["cancellation"]
    told = {entry["key"] for entry in receipt["interrupted"]}
    assert set(kind.interrupted) <= told
    return run


def _check_events(events: list[Event], run: dict[str, Any]) -> None:
    """The last event is the run as it ended, nothing follows, and no number is missing."""
    names = [event.name for event in events]
    assert names[-1] == "run"
    assert names.count("run") == 2
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert events[-1].data == run
    ended = {e.data["key"]: e.data for e in events if e.name == "step"}
    assert ended == run["output"]


async def _nothing_more_happens(stage: Stage, stopped: dict[str, int]) -> None:
    """While other runs go on, no request of a stopped run comes, and no worker works for one."""
    before = {pid: processor_seconds(pid) for pid in family(stage.served.pid)}
    workflow_id = await stage.owner.push([http("asks", f"{stage.loopback.url}/ok/others")])
    for _ in range(20):
        run = await stage.owner.ok("POST", f"workflows/{workflow_id}/runs")
        assert run["status"] == "COMPLETED"
    for tag, seen in stopped.items():
        assert len(stage.loopback.of(tag)) == seen
        assert not [a for a in stage.loopback.of(tag) if a.path.startswith("/later/")]
    for pid, used in before.items():
        assert processor_seconds(pid) - used < 0.1, "a worker goes on working"


async def test_a_run_that_waits_for_room_never_begins(serve: Serve, loopback: Loopback) -> None:
    async with clients(serve(INSULA_RUNS_MAX="4")) as made:
        owner, guest = await made.app("Acme"), await made.app("Globex")
        steps = [http("busy", f"{loopback.url}/hang/{{{{input.tag}}}}")]
        workflow_id = await owner.push(steps)
        await owner.publish(workflow_id)
        for caller, through in ((owner, "workflows"), (guest, "workflows/discover")):
            await _cancel_in_the_queue(caller, f"{through}/{workflow_id}/runs", loopback)


async def _cancel_in_the_queue(caller: Caller, path: str, loopback: Loopback) -> None:
    def body(tag: str) -> dict[str, Any]:
        return {"input": {"tag": tag}, "background": True}

    mark = caller.app_id
    live = [await caller.ok("POST", path, body(f"live-{mark}-{n}")) for n in range(2)]
    waiting = await caller.ok("POST", path, body(f"queued-{mark}"))
    assert waiting["status"] == "PENDING"
    run = await caller.ok("POST", f"{path}/{waiting['id']}/cancel")
    shaped(run, "RunSchema")
    assert (run["status"], run["output"]) == ("CANCELLED", {})
    assert run["ended_at"] is not None
    for started in live:
        await caller.ok("POST", f"{path}/{started['id']}/cancel")
    again = await caller.ok("POST", path, body(f"next-{mark}"))  # there is room again
    await loopback.arrived(f"next-{mark}")
    await caller.ok("POST", f"{path}/{again['id']}/cancel")
    assert loopback.of(f"queued-{mark}") == []
    assert await caller.ok("GET", f"{path}/{waiting['id']}") == run


async def test_two_callers_at_once_get_the_same_end(stage: Stage) -> None:
    workflow_id = await stage.owner.push(KINDS[0].steps(stage.loopback.url))
    path = f"workflows/{workflow_id}/runs"
    for _ in range(5):
        tag = f"twice-{next(_numbers)}"
        run = await stage.owner.ok("POST", path, {"input": {"tag": tag}, "background": True})
        await stage.loopback.arrived(tag)
        cancel = f"{path}/{run['id']}/cancel?verbose=all"
        answers = await asyncio.gather(*(stage.owner.ok("POST", cancel) for _ in range(8)))
        assert all(answer == answers[0] for answer in answers)
        assert answers[0]["status"] == "CANCELLED"


async def test_a_run_is_cancelled_with_all_the_others(stage: Stage) -> None:
    workflow_id = await stage.owner.push(KINDS[0].steps(stage.loopback.url))
    path = f"workflows/{workflow_id}/runs"
    tags = [f"bulk-{next(_numbers)}" for _ in range(6)]
    bodies = [{"input": {"tag": tag}, "background": True} for tag in tags]
    started = [await stage.owner.ok("POST", path, body) for body in bodies]
    for tag in tags:
        await stage.loopback.arrived(tag)
    stopped = await stage.owner.ok("POST", "runs/cancel", {"workflow_id": workflow_id})
    assert sorted(stopped["runs"]) == sorted(run["id"] for run in started)
    for run in started:
        assert (await stage.owner.ok("GET", f"{path}/{run['id']}"))["status"] == "CANCELLED"


async def test_a_waiting_caller_is_answered_when_another_cancels(stage: Stage) -> None:
    workflow_id = await stage.owner.push(KINDS[2].steps(stage.loopback.url))
    path, tag = f"workflows/{workflow_id}/runs", f"waiting-{next(_numbers)}"
    waiting = asyncio.create_task(stage.owner.ok("POST", path, {"input": {"tag": tag}}))
    await stage.loopback.arrived(tag)
    (listed,) = await stage.owner.ok("GET", f"{path}?status=RUNNING")
    cancelled = await stage.owner.ok("POST", f"{path}/{listed['id']}/cancel")
    assert await waiting == cancelled


async def test_a_caller_who_leaves_cancels_if_it_said_so(stage: Stage) -> None:
    workflow_id = await stage.owner.push(KINDS[5].steps(stage.loopback.url))
    path, tag = f"workflows/{workflow_id}/runs", f"leaving-{next(_numbers)}"
    body = {"input": {"tag": tag}, "stream": True, "on_disconnect": "cancel"}
    async with stage.owner.stream(path, body) as stream:
        run_id = await stream.run_id()
        await stage.loopback.arrived(tag)
    await stage.loopback.left(tag)
    run = await stage.owner.final(path, run_id)
    assert run["status"] == "CANCELLED"


async def test_a_child_that_is_cancelled_by_itself_fails_its_parent(stage: Stage) -> None:
    top = await push_family(stage.owner, stage.loopback.url)
    path, tag = f"workflows/{top}/runs", f"child-{next(_numbers)}"
    run = await stage.owner.ok("POST", path, {"input": {"tag": tag}, "background": True})
    await stage.loopback.arrived(tag)
    runs = await stage.owner.ok("GET", "runs?status=RUNNING")
    child = next(r for r in runs if r.get("parent_run_id") == run["id"])
    ended = await stage.owner.ok(
        "POST", f"workflows/{child['workflow_id']}/runs/{child['id']}/cancel"
    )
    assert ended["status"] == "CANCELLED"
    final = await stage.owner.final(path, run["id"])
    assert (final["status"], final["output"]["busy"]["status"]) == ("FAILED", "FAILED")


async def test_a_reader_who_comes_back_gets_the_rest(stage: Stage) -> None:
    kind = next(kind for kind in KINDS if kind.name == "model-mock")
    workflow_id = await stage.owner.push(kind.steps(stage.loopback.url))
    path, tag = f"workflows/{workflow_id}/runs", f"again-{next(_numbers)}"
    async with stage.owner.stream(path, {"input": {"tag": tag}, "stream": True}) as stream:
        run_id = await stream.run_id()
        await stream.chunks("busy", 3)
    read = stream.events
    await stage.owner.ok("POST", f"{path}/{run_id}/cancel")
    after = {"last-event-id": str(read[-1].id)}
    async with stage.owner.stream(f"{path}/{run_id}/stream", method="GET", headers=after) as rest:
        whole = [*read, *await rest.to_the_end()]
    assert [event.id for event in whole] == list(range(1, len(whole) + 1))
    assert whole[-1].data == await stage.owner.ok("GET", f"{path}/{run_id}")
    past = await stage.owner.ask(
        "GET", f"{path}/{run_id}/stream", headers={"last-event-id": str(whole[-1].id)}
    )
    assert past.status == 204
