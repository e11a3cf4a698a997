"""Who may cancel what, whatever became of the run and of its workflow meanwhile."""

import pytest

from tests.acceptance.harness import Caller, Clients, shaped
from tests.acceptance.kinds import KINDS, first, http
from tests.acceptance.loopback import Loopback

UNKNOWN = "run_" + "1" * 22


@pytest.fixture
async def owner(callers: Clients) -> Caller:
    return await callers.app("Acme")


@pytest.fixture
async def guest(callers: Clients) -> Caller:
    return await callers.app("Globex")


async def _busy(owner: Caller, guest: Caller, loopback: Loopback, tag: str) -> tuple[str, str]:
    """Publish a workflow and start it as the guest; return its id and the run's."""
    workflow_id = await owner.push(KINDS[5].steps(loopback.url))
    await owner.publish(workflow_id)
    body = {"input": {"tag": tag}, "background": True}
    run = await guest.ok("POST", f"workflows/discover/{workflow_id}/runs", body)
    await loopback.arrived(tag)
    return workflow_id, run["id"]


async def test_only_the_caller_cancels_its_run(
    owner: Caller, guest: Caller, callers: Clients, loopback: Loopback
) -> None:
    stranger = await callers.app("Globex")
    workflow_id, run_id = await _busy(owner, guest, loopback, "rights")
    other = await owner.push([first()])
    await owner.publish(other)
    bodies = set()
    for caller, path in (
        (stranger, f"workflows/discover/{workflow_id}/runs/{run_id}"),  # another app's run
        (stranger, f"workflows/{workflow_id}/runs/{run_id}"),
        (owner, f"workflows/{workflow_id}/runs/{run_id}"),  # its caller's data, not its own
        (owner, f"workflows/discover/{workflow_id}/runs/{run_id}"),
        (guest, f"workflows/{workflow_id}/runs/{run_id}"),  # not its own workflow
        (guest, f"workflows/discover/{other}/runs/{run_id}"),  # another workflow's run
        (guest, f"workflows/discover/{workflow_id}/runs/{UNKNOWN}"),
        (guest, f"workflows/discover/work_{'1' * 22}/runs/{run_id}"),
    ):
        answer = await caller.ask("POST", f"{path}/cancel")
        assert answer.status == 404, path
        bodies.add(answer.body)
    assert len(bodies) == 1
    path = f"workflows/discover/{workflow_id}/runs/{run_id}"
    assert (await guest.ok("GET", path))["status"] == "RUNNING"
    assert (await guest.ok("POST", f"{path}/cancel"))["status"] == "CANCELLED"


@pytest.mark.parametrize("fate", ["unpublished", "disabled", "blocked", "closed"])
async def test_nobody_is_stranded(
    owner: Caller, guest: Caller, loopback: Loopback, fate: str
) -> None:
    workflow_id, run_id = await _busy(owner, guest, loopback, f"stranded-{fate}")
    if fate == "blocked":
        await owner.ok("PUT", f"workflows/{workflow_id}/callers/{guest.app_id}")
    else:
        change = {"unpublished": {"discoverable": False}, "disabled": {"enabled": False}}
        body = change.get(fate, {"open": False})
        await owner.ok("PATCH", f"workflows/{workflow_id}", body)
    run = await guest.ok("POST", f"workflows/discover/{workflow_id}/runs/{run_id}/cancel")
    shaped(run, "RunSchema")
    assert run["status"] == "CANCELLED"
    await loopback.left(f"stranded-{fate}")


async def test_deleting_a_workflow_stops_what_runs_and_keeps_it(
    owner: Caller, guest: Caller, loopback: Loopback
) -> None:
    workflow_id, run_id = await _busy(owner, guest, loopback, "deleted")
    await owner.ok("DELETE", f"workflows/{workflow_id}")
    await loopback.left("deleted")
    path = f"workflows/discover/{workflow_id}/runs/{run_id}"
    run = await guest.ok("GET", path)
    assert run["status"] == "CANCELLED"
    assert await guest.ok("POST", f"{path}/cancel") == run


@pytest.mark.parametrize(
    ("code", "status"),
    [("return 1", "COMPLETED"), ("throw new Error('no')", "FAILED")],
)
async def test_a_finished_run_stays_as_it_is(owner: Caller, code: str, status: str) -> None:
    workflow_id = await owner.push([{"type": "code", "key": "only", "code": code}])
    run = await owner.ok("POST", f"workflows/{workflow_id}/runs")
    assert run["status"] == status
    path = f"workflows/{workflow_id}/runs/{run['id']}"
    for _ in range(2):
        assert await owner.ok("POST", f"{path}/cancel") == run
    verbose = await owner.ok("GET", f"{path}?verbose=all")
    assert "cancellation" not in verbose


async def test_a_skipped_run_stays_as_it_is(owner: Caller) -> None:
    only = {"type": "code", "key": "only", "code": "return 1", "conditional": "false"}
    workflow_id = await owner.push([only])
    run = await owner.ok("POST", f"workflows/{workflow_id}/runs")
    assert run["status"] == "SKIPPED"
    assert await owner.ok("POST", f"workflows/{workflow_id}/runs/{run['id']}/cancel") == run


async def test_a_closed_workflow_hides_what_was_interrupted(
    owner: Caller, guest: Caller, loopback: Loopback
) -> None:
    workflow_id = await owner.push(KINDS[5].steps(loopback.url))
    await owner.publish(workflow_id, is_open=False)
    path = f"workflows/discover/{workflow_id}/runs"
    body = {"input": {"tag": "closed"}, "stream": True}
    async with guest.stream(path, body) as stream:
        run_id = await stream.run_id()
        await loopback.arrived("closed")
        run = await guest.ok("POST", f"{path}/{run_id}/cancel?verbose=all")
        events = await stream.to_the_end()
    shaped(run, "RunSchema")
    assert run["output"] == {}
    assert run["workflow_version"]["steps"] == []
    assert run["usage"] == {"total": 0, "steps": {}}
    assert run["cancellation"]["interrupted"] == []
    assert run["cancellation"]["interrupted_hidden"] == 1
    assert [event.name for event in events] == ["run", "run"]
    told = "".join(str(event.data) for event in events) + str(run)
    assert loopback.url not in told
    assert "busy" not in told


async def test_a_replay_of_a_cancelled_run_goes_to_the_end(
    owner: Caller, guest: Caller, loopback: Loopback
) -> None:
    steps = [first("busy"), http("busy", f"{loopback.url}/{{{{input.way}}}}/{{{{input.tag}}}}")]
    workflow_id = await owner.push(steps)
    await owner.publish(workflow_id)
    path = f"workflows/discover/{workflow_id}/runs"
    body = {"input": {"tag": "replay", "way": "hang"}, "background": True}
    run = await guest.ok("POST", path, body)
    await loopback.arrived("replay")
    cancelled = await guest.ok("POST", f"{path}/{run['id']}/cancel")
    again = await guest.ok(
        "POST", f"{path}/{run['id']}/replay", {"stepKey": "busy", "background": True}
    )
    await loopback.arrived("replay", 2)
    assert again["output"]["first"] == cancelled["output"]["first"]
    ended = await guest.ok("POST", f"{path}/{again['id']}/cancel")
    assert ended["status"] == "CANCELLED"
    assert await guest.ok("GET", f"{path}/{run['id']}") == cancelled
