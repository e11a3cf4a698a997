"""Runs on several nodes: cancelled, followed and taken over at one that does not execute them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from sqlalchemy import Connection
from tests.runs.cluster_platform import Node, Nodes, open_nodes
from tests.runs.platform import child, code
from tests.runs.test_stream import Wire

from insula.engine.state import fold
from insula.errors import Unavailable
from insula.journal import elsewhere, lease
from insula.kit.clock import now_ms
from insula.runs import creation, dispatch, pace, repository, sweeper
from insula.runs.dispatch import drain, shut_down
from insula.storage.dialect import now_ms as database_ms


@pytest.fixture
async def nodes(
    tmp_path: Path, tables_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Nodes]:
    # Tests renew themselves; so nothing may take longer than the lease.
    monkeypatch.setattr(lease, "RENEWED_EVERY", 3600)
    monkeypatch.setattr(lease, "SECONDS", 60.0)
    async with open_nodes(tmp_path, tables_url) as opened:
        yield opened


@pytest.fixture
async def pair(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, Node]:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)  # tests sweep themselves
    return await nodes.open(), await nodes.open()


async def running(node: Node, *steps: dict[str, Any], gate: str = "a") -> tuple[str, str]:
    """Begin a run in the background that waits at a gate; return its path and its id."""
    workflow_id = await node.acme.make(*(steps or (code("A", f"wait({gate})"),)))
    run = await node.acme.run(workflow_id, background=True)
    await node.platform.reached(gate)
    return f"/workflows/{workflow_id}/runs/{run['id']}", run["id"]


def asking(key: str) -> dict[str, Any]:
    """Make a step with an effect outside."""
    return {"type": "http_request", "key": key, "method": "POST", "url": "http://x.test/"}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110  # what the database says
            await asyncio.sleep(0.01)


async def test_a_run_is_cancelled_at_the_node_that_does_not_execute_it(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    path, run_id = await running(one)
    live = one.services.live.get(run_id)
    cancelled = await two.acme.ok("POST", f"{path}/cancel?verbose=all")
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["cancellation"]["interrupted"]
    assert live is not None
    assert live.finished.done()
    assert len(one.services.live) == 0
    again = await one.acme.ok("POST", f"{path}/cancel?verbose=all")
    assert again == cancelled


async def test_without_messages_a_cancel_arrives_with_the_renewal(pair: tuple[Node, Node]) -> None:
    one, two = pair
    path, _ = await running(one)
    two.cut()
    cancelling = asyncio.create_task(two.acme.ok("POST", f"{path}/cancel"))

    async def requested() -> bool:
        rows = await two.platform.rows("SELECT cancel_requested_at FROM runs")
        return rows[0][0] is not None

    await until(requested)
    await one.lease.renew()
    assert (await asyncio.wait_for(cancelling, 5))["status"] == "CANCELLED"


async def test_a_cancel_while_the_owner_is_dying_is_not_forgotten(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    path, run_id = await running(one)
    monkeypatch.setattr(two.services, "stop_within", 0.3)
    one.cut()
    monkeypatch.setattr(one.lease, "_cancel_requested", None)
    answer = await two.acme.ask("POST", f"{path}/cancel")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    await one.lapse()
    assert (await two.acme.ok("POST", f"{path}/cancel"))["status"] == "CANCELLED"
    await one.lease.rejoin()  # it was only paused, and comes back
    await one.platform.idle()
    assert one.services.live.get(run_id) is None
    assert one.services.metrics.fenced._value.get() == 1
    assert (await one.acme.ok("GET", path))["status"] == "CANCELLED"


async def test_a_run_that_waits_is_cancelled_anywhere(nodes: Nodes) -> None:
    one, two = await nodes.open(runs_max=1, runs_share=1), await nodes.open(runs_max=1)
    await running(one)
    await running(two, gate="b")
    workflow_id = await one.acme.make(code("A", "1"))
    waiting = await one.acme.run(workflow_id, background=True)
    assert waiting["status"] == "PENDING"
    path = f"/workflows/{workflow_id}/runs/{waiting['id']}/cancel"
    assert (await two.acme.ok("POST", path))["status"] == "CANCELLED"


async def test_a_run_that_waits_begins_where_there_is_room(nodes: Nodes) -> None:
    one, two = await nodes.open(runs_max=1, runs_share=1), await nodes.open()
    await running(one)
    workflow_id = await one.acme.make(code("A", "1"))
    waiting = await one.acme.run(workflow_id, background=True)
    path = f"/workflows/{workflow_id}/runs/{waiting['id']}"
    told = await two.acme.stream(f"{path}/stream")
    assert told[-1].data["status"] == "COMPLETED"
    assert len(one.services.live) == 1


async def test_many_runs_and_whole_workflows_are_cancelled_across_nodes(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    workflow_id = await one.acme.make(code("A", "wait(a)"))
    runs = [await one.acme.run(workflow_id, background=True) for _ in range(3)]
    stopped = await two.acme.ok("POST", "/runs/cancel", {"workflow_id": workflow_id})
    assert sorted(stopped["runs"]) == sorted(run["id"] for run in runs)
    await one.acme.run(workflow_id, background=True)
    await two.acme.ok("DELETE", f"/workflows/{workflow_id}")
    assert len(one.services.live) == 0
    refused = await one.acme.ask("POST", f"/workflows/{workflow_id}/runs", {})
    assert refused.status_code == 404


async def test_a_stream_is_followed_at_another_node(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "LOOKED_EVERY", 3600)  # messages alone
    one, two = pair
    path, run_id = await running(one, code("A", "wait(a)", "B"), code("B", "2"))
    following = asyncio.create_task(two.acme.stream(f"{path}/stream?from=0"))

    async def followed() -> bool:
        assert two.services.journal.elsewhere is not None
        return run_id in two.services.journal.elsewhere._woken

    await until(followed)
    one.platform.gate("a").opened.set()
    there = await asyncio.wait_for(following, 10)
    here = await one.acme.stream(f"{path}/stream?from=0")
    assert [event.text for event in there] == [event.text for event in here]
    for split in range(len(here)):
        rest = await two.acme.stream(f"{path}/stream?from={split}")
        assert [event.id for event in rest] == [event.id for event in here][split:]


async def test_the_same_request_at_another_node_waits_for_the_same_run(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    workflow_id = await one.acme.make(code("A", "wait(a)"))
    key = {"idempotency-key": "one"}
    path = f"/workflows/{workflow_id}/runs"
    first = asyncio.create_task(one.acme.ok("POST", path, {}, headers=key))
    await one.platform.reached("a")
    second = asyncio.create_task(two.acme.ok("POST", path, {}, headers=key))
    one.platform.gate("a").opened.set()
    assert (await asyncio.wait_for(first, 10)) == (await asyncio.wait_for(second, 10))
    assert two.platform.sandbox.evaluated == []


async def left(caller: Wire, serving: asyncio.Task[None], path: str, node: Node) -> None:
    """Let a caller go away, and see that its run is cancelled."""
    caller.leave()
    async with asyncio.timeout(5):
        await asyncio.wait([serving])
    run = await node.acme.ok("GET", f"{path}?verbose=all")
    assert run["status"] == "CANCELLED"
    assert run["cancellation"]["requested_by"] == "disconnect"


@pytest.mark.parametrize("stream", [True, False])
async def test_who_repeats_a_request_at_another_node_cancels_by_going_away(
    pair: tuple[Node, Node], stream: bool
) -> None:
    one, two = pair
    workflow_id = await one.acme.make(code("A", "wait(a)"))
    path = f"/workflows/{workflow_id}/runs"
    body = {"stream": stream, "on_disconnect": "cancel"}
    first = Wire(one.acme, "POST", path, body, key="k")
    serving = asyncio.create_task(first.serve(one.platform.insula.asgi))
    await one.platform.reached("a")
    await first.hears(1 if stream else 0)
    again = Wire(two.acme, "POST", path, body, key="k")
    repeating = asyncio.create_task(again.serve(two.platform.insula.asgi))
    await again.hears(1 if stream else 0)
    (row,) = await one.platform.rows("SELECT id FROM runs")
    await left(again, repeating, f"{path}/{row.id}", two)
    await asyncio.wait_for(serving, 5)


async def test_who_goes_away_cancels_a_run_that_went_to_another_node(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    workflow_id = await one.acme.make(code("A", "wait(a)", "B"), code("B", "wait(b)"))
    path = f"/workflows/{workflow_id}/runs"
    caller = Wire(one.acme, "POST", path, {"stream": True, "on_disconnect": "cancel"})
    serving = asyncio.create_task(caller.serve(one.platform.insula.asgi))
    await one.platform.reached("a")
    await caller.hears(2)
    await one.lapse()
    await two.sweeper.sweep()
    await two.platform.reached("a")
    await one.lease.rejoin()
    await one.platform.idle()
    two.platform.gate("a").opened.set()
    await two.platform.reached("b")
    await caller.hears(4)
    (row,) = await one.platform.rows("SELECT id FROM runs")
    await left(caller, serving, f"{path}/{row.id}", two)
    assert len(two.services.live) == 0


async def test_the_runs_of_a_dead_node_go_on_at_another(pair: tuple[Node, Node]) -> None:
    one, two = pair
    path, run_id = await running(one, code("A", "1", "B"), code("B", "wait(a)"))

    async def first_is_stored() -> bool:
        events, _ = await two.services.journal.read(run_id)
        first = fold(events).steps.get("A")
        return first is not None and first.status == "COMPLETED"

    await until(first_is_stored)
    caller = asyncio.create_task(one.acme.stream(f"{path}/stream?from=0"))
    await one.lapse()
    two.platform.gate("a").opened.set()
    await two.sweeper.sweep()
    await two.platform.idle()
    run = await two.acme.ok("GET", path)
    assert run["status"] == "COMPLETED"
    assert two.platform.sandbox.evaluated == ["wait(a)"]  # what had ended is not repeated
    await one.lease.rejoin()
    await one.platform.idle()
    assert one.services.live.get(run_id) is None
    told = await asyncio.wait_for(caller, 10)  # it goes on where the run does
    assert told[-1].data["status"] == "COMPLETED"
    assert [event.id for event in told] == list(range(1, len(told) + 1))


async def test_a_node_that_comes_back_in_time_goes_on_without_interruption(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    path, run_id = await running(one, code("A", "wait(a)", "B"), asking("B"))
    live, before = one.services.live.get(run_id), one.services.token
    await one.lapse()
    one.services.journal.lapse()
    one.platform.gate("a").opened.set()
    await asyncio.sleep(0.05)
    assert one.platform.http.requests == []  # no effect without a lease
    await one.lease.rejoin()
    await one.platform.idle()
    assert one.services.token != before
    assert (await one.acme.ok("GET", path))["status"] == "COMPLETED"
    assert live is not None
    assert not live.fenced
    assert len(one.platform.http.requests) == 1
    assert two.platform.sandbox.evaluated == []


async def test_of_two_who_claim_one_wins(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)
    one, two, three = [await nodes.open() for _ in range(3)]
    workflow_id = await one.acme.make(code("A", "wait(a)"))
    runs = [await one.acme.run(workflow_id, background=True) for _ in range(8)]
    await one.lapse()
    both = await asyncio.gather(two.sweeper.sweep(), three.sweeper.sweep(), one.lease.rejoin())
    assert both
    live = [{run.row.id for run in node.services.live} for node in (one, two, three)]
    owners = {run["id"]: await one.owner(run["id"]) for run in runs}
    for node, mine in zip((one, two, three), live, strict=True):
        await asyncio.sleep(0)
        owned = {run_id for run_id, owner in owners.items() if owner == node.services.token}
        still = {run_id for run_id in mine if not _dropped(node, run_id)}
        assert still == owned
    assert sum(map(len, live)) >= 8


def _dropped(node: Node, run_id: str) -> bool:
    live = node.services.live.get(run_id)
    return live is None or live.log.fenced


async def test_nobody_claims_what_came_back_under_another_token(pair: tuple[Node, Node]) -> None:
    one, two = pair
    _, run_id = await running(one)
    dead = one.services.token
    await one.lapse()
    await one.lease.rejoin()
    watch = two.services.journal.database_clock
    claim = partial(
        repository.claim, run_id=run_id, token=two.services.token, now=now_ms(), watch=watch
    )
    assert await two.services.database.write(claim) is None
    assert await one.owner(run_id) == one.services.token != dead


async def test_steps_of_a_node_s_own_clock_harm_nothing(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    path, _ = await running(one)
    for step in (-86_400_000, 86_400_000):
        moved = now_ms() + step
        monkeypatch.setattr("insula.kit.clock.now_ms", lambda moved=moved: moved)
        await one.lease.renew()
        await two.lease.renew()
        await two.sweeper.sweep()
        assert not one.services.journal.lapsed()
    monkeypatch.undo()
    assert len(one.services.live) == 1
    assert len(two.services.live) == 0
    one.platform.gate("a").opened.set()
    await one.platform.idle()
    assert (await two.acme.ok("GET", path))["status"] == "COMPLETED"


@pytest.mark.parametrize("step", [-3_600_000, 3_600_000])
async def test_steps_of_the_database_s_clock_harm_nothing(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    one, two = pair
    path, run_id = await running(one, code("A", "wait(a)", "B"), asking("B"))
    await two.sweeper.sweep()
    stepped = lambda connection: database_ms(connection) + step  # noqa: E731  # it is told to be one
    monkeypatch.setattr("insula.journal.lease.now_ms", stepped)
    await two.sweeper.sweep()
    await one.lease._once()  # renewed, or taken again
    await two.sweeper.sweep()
    assert await one.owner(run_id) == one.services.token
    assert len(two.services.live) == 0
    one.platform.gate("a").opened.set()
    await one.platform.idle()
    assert (await two.acme.ok("GET", path))["output"]["B"]["status"] == "COMPLETED"
    assert len(one.platform.http.requests) == 1
    assert two.platform.sandbox.evaluated == []


async def test_retention_changed_at_another_node_holds_at_the_end(
    pair: tuple[Node, Node],
) -> None:
    one, two = pair
    path, _ = await running(one)
    await two.acme.ok("PATCH", f"{path}/retention", {"retention": 0})
    one.platform.gate("a").opened.set()
    await one.platform.idle()
    assert (await two.acme.ok("GET", path))["output"] == {}
    other, _ = await running(one, code("A", "wait(b)"), gate="b")
    one.cut()
    refused = await two.acme.ask("PATCH", f"{other}/retention", {"retention": 0})
    assert refused.status_code == 503


async def test_retention_changed_at_another_node_holds_if_the_run_ends_meanwhile(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    path, _ = await running(one)
    write = two.services.database.write

    async def ends_meanwhile(unit: Any) -> Any:
        written = await write(unit)
        one.platform.gate("a").opened.set()
        await one.platform.idle()
        return written

    monkeypatch.setattr(two.services.database, "write", ends_meanwhile)
    await two.acme.ok("PATCH", f"{path}/retention", {"retention": 0})
    assert (await one.acme.ok("GET", path))["output"] == {}


async def test_what_one_node_changes_the_others_see(pair: tuple[Node, Node]) -> None:
    one, two = pair
    workflow_id = await one.acme.make(code("A", "1"))
    assert (await two.acme.run(workflow_id))["status"] == "COMPLETED"
    await one.acme.ok("PATCH", f"/workflows/{workflow_id}", {"enabled": False})
    await asyncio.sleep(0)

    async def refused() -> bool:
        answer = await two.acme.ask("POST", f"/workflows/{workflow_id}/runs", {})
        return answer.status_code == 409

    await until(refused)
    made = await one.acme.ok("POST", "/keys", {"name": "short"})

    async def known() -> bool:
        headers = {"authorization": f"Bearer {made['key']}"}
        answer: httpx.Response = await two.platform.client.get("/apps/c/workflows", headers=headers)
        return answer.status_code == 200

    assert await known()
    await one.acme.ok("DELETE", f"/keys/{made['id']}")
    await asyncio.sleep(0)
    assert not await known()


async def test_a_node_that_is_drained_lets_short_runs_end_and_leaves_the_others(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)
    two = await nodes.open()
    async with AsyncExitStack() as stack:
        one = await nodes.open(stack)
        short, _ = await running(one)
        long, _ = await running(one, code("A", "wait(b)"), gate="b")
        following = asyncio.create_task(one.acme.stream(f"{long}/stream?from=0"))
        hurry = asyncio.Event()
        draining = asyncio.create_task(drain(one.services, 60, hurry))
        await asyncio.sleep(0)
        refused = await one.acme.ask("POST", f"{short.rpartition('/')[0]}", {})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        ready = await one.platform.client.get("/readyz")
        assert ready.status_code == 503
        assert "draining" in ready.text
        one.platform.gate("a").opened.set()
        await until(lambda: _has(one, 1))
        hurry.set()
        await asyncio.wait_for(draining, 5)
        await shut_down(one.services)
        first = await asyncio.wait_for(following, 5)
        assert first[-1].data["status"] == "RUNNING"
        two.platform.gate("b").opened.set()
    assert (await two.acme.ok("GET", short))["status"] == "COMPLETED"
    # Leaving, it told the others to look at once.
    rest = await asyncio.wait_for(two.acme.stream(f"{long}/stream?from={first[-1].id}"), 10)
    assert rest[-1].data["status"] == "COMPLETED"
    told = [event.id for event in (*first, *rest)]
    assert told == list(range(1, len(told) + 1))


async def test_a_lease_that_is_given_up_is_kept_no_more(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewed after that it would look lost, and be taken again by a node that is about to end."""
    keep, release = lease.Lease.keep, lease.Lease.release
    done: list[str] = []

    async def kept(self: lease.Lease) -> None:
        try:
            await keep(self)
        finally:
            done.append("kept")

    async def released(self: lease.Lease) -> None:
        done.append("released")
        await release(self)

    monkeypatch.setattr(lease.Lease, "keep", kept)
    monkeypatch.setattr(lease.Lease, "release", released)
    async with AsyncExitStack() as stack:
        await nodes.open(stack)
    assert done == ["kept", "released"]


async def _has(node: Node, count: int) -> bool:
    return len(node.services.live) == count


async def test_a_node_without_room_leaves_runs_to_others(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)  # the test sweeps itself
    one = await nodes.open()
    full = await nodes.open(runs_max=1, runs_share=1)
    await running(full)
    path, run_id = await running(one, code("A", "wait(b)"), gate="b")
    await one.lapse()
    await full.sweeper.sweep()
    assert full.services.live.get(run_id) is None
    assert path


async def test_what_nobody_has_room_for_goes_on_all_the_same(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)  # the test sweeps itself
    one = await nodes.open()
    full = await nodes.open(runs_max=2, runs_share=0.5)
    await running(full)
    lost = [await running(one, code("A", "wait(b)"), gate="b") for _ in range(3)]
    await one.lapse()
    await full.sweeper.sweep()
    assert len(full.services.live) == 1  # others with room come first
    await full.sweeper.sweep()
    assert {run_id for _, run_id in lost} < {live.row.id for live in full.services.live}
    owners = {await one.owner(run_id) for _, run_id in lost}
    assert owners == {full.services.token}
    refused = await full.acme.ask("POST", lost[0][0].rpartition("/")[0], {})
    assert refused.status_code == 429  # nothing new is admitted beyond the limit
    full.platform.gate("b").opened.set()
    for path, _ in lost:
        stream = await full.acme.stream(f"{path}/stream")
        assert stream[-1].data["status"] == "COMPLETED"


async def test_while_nothing_can_be_stored_no_run_is_taken_and_in_the_end_those_here_fail(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "STALLED_SECONDS", 0.03)
    one = await nodes.open(storage_patience=0.2)
    path, _ = await running(one, code("A", "wait(a)", "B"), asking("B"))
    one.services.journal.lapse()
    one.platform.gate("a").opened.set()
    refused = await one.acme.ask("POST", path.rpartition("/")[0], {})
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    await one.platform.idle()
    run = await one.acme.ok("GET", path)
    assert run["status"] == "FAILED"
    assert "INSULA_STORAGE_PATIENCE" in run["error"]
    assert one.platform.http.requests == []
    await one.lease.renew()
    workflow_id = await one.acme.make(code("A", "1"))
    assert (await one.acme.run(workflow_id))["status"] == "COMPLETED"


async def test_a_run_that_is_not_stored_in_time_is_refused_and_stops_if_it_comes_late(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "STORED_WITHIN", 0.05)
    one = await nodes.open()
    workflow_id = await one.acme.make(code("A", "wait(a)"))
    held: list[Callable[[], None]] = []
    submit = one.services.creating.submit
    monkeypatch.setattr(
        one.services.creating, "submit", lambda new, told: held.append(partial(submit, new, told))
    )
    refused = await one.acme.ask("POST", f"/workflows/{workflow_id}/runs", {})
    assert refused.status_code == 503
    held.pop()()
    await one.platform.idle()
    runs = await one.acme.ok("GET", f"/workflows/{workflow_id}/runs")
    assert [run["status"] for run in runs] == ["CANCELLED"]


async def test_a_waiting_run_that_was_refused_is_cancelled_when_it_turns_out_to_be_stored(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "STORED_WITHIN", 0.05)
    monkeypatch.setattr(creation, "_CANCELLED_EVERY", 0.01)
    one = await nodes.open(runs_max=1, runs_share=1)
    await running(one)
    workflow_id = await one.acme.make(code("A", "1"))
    database = one.services.database
    submit, loop = database.submit, asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    asked_for: list[Callable[[Connection], Any]] = []

    def unanswered(unit: Callable[[Connection], Any], fenced: bool = False) -> asyncio.Future[Any]:
        if fenced:  # of the run that is live
            return submit(unit, fenced)
        asked_for.append(unit)
        if len(asked_for) == 1:
            stored = threading.Event()
            submit(unit)
            submit(lambda _: stored.set())
            assert stored.wait(10)
            return answer
        if len(asked_for) < 4:
            failing: asyncio.Future[Any] = loop.create_future()
            failing.set_exception(Unavailable("away"))
            return failing
        return submit(unit, fenced)

    monkeypatch.setattr(database, "submit", unanswered)
    path = f"/workflows/{workflow_id}/runs"
    refused = await one.acme.ask("POST", path, {"background": True})
    assert refused.status_code == 503
    assert len(asked_for) == 2  # it was asked for at once, in vain
    answer.set_result(None)

    async def asked() -> bool:
        rows = await one.platform.rows(
            "SELECT cancel_requested_at FROM runs WHERE workflow_id = :id", id=workflow_id
        )
        return [at is not None for (at,) in rows] == [True]

    await until(asked)
    assert len(asked_for) == 4


async def test_a_waiting_run_that_was_refused_is_not_stored_afterwards(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "STORED_WITHIN", 0.05)
    one = await nodes.open(runs_max=1, runs_share=1)
    await running(one)
    workflow_id = await one.acme.make(code("A", "1"))
    writer_is_free = threading.Event()
    held = one.services.database.submit(lambda _: writer_is_free.wait(10))
    path = f"/workflows/{workflow_id}/runs"
    refused = await one.acme.ask("POST", path, {"background": True})
    writer_is_free.set()
    await held
    assert refused.status_code == 503
    await one.services.database.write(lambda _: None)  # behind whatever was on its way
    assert await one.acme.ok("GET", path) == []


_FULL = (
    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$",
    "CREATE TRIGGER full_disk BEFORE INSERT ON runs EXECUTE FUNCTION full_disk()",
    "CREATE TRIGGER full_disk BEFORE INSERT ON run_events EXECUTE FUNCTION full_disk()",
)


async def test_while_the_database_s_disk_is_full_runs_pause_and_go_on_afterwards(
    nodes: Nodes,
) -> None:
    one = await nodes.open()
    path, _ = await running(one, code("A", "wait(a)", "B"), asking("B"))
    for statement in _FULL:
        await one.platform.change(statement)
    refused = await one.acme.ask("POST", path.rpartition("/")[0], {})
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    one.platform.gate("a").opened.set()

    async def waits() -> bool:
        return bool(one.services.journal.stalled(asyncio.get_running_loop().time()))

    await until(waits)
    assert one.platform.http.requests == []
    await one.platform.change("DROP FUNCTION full_disk() CASCADE")
    told = await asyncio.wait_for(one.acme.stream(f"{path}/stream?from=0"), 20)
    assert told[-1].data["status"] == "COMPLETED"
    assert [event.id for event in told] == list(range(1, len(told) + 1))
    assert len(one.platform.http.requests) == 1


async def test_a_broker_that_is_away_is_told_and_harms_no_run(nodes: Nodes) -> None:
    one = await nodes.open(cluster_url="nats://127.0.0.1:1")
    workflow_id = await one.acme.make(code("A", "1"))
    one.cut()
    ready = await one.platform.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"]["signals"].startswith("degraded")
    assert (await one.acme.run(workflow_id))["status"] == "COMPLETED"
    one.signals.mend()
    one.jobs.mend()
    assert (await one.platform.client.get("/readyz")).json()["checks"]["signals"] == "ok"


async def test_a_child_whose_creation_came_too_late_has_none_beside_it_cancelled(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is lost and taken again while a child is on its way to be stored."""
    one, _ = pair
    slow = await one.acme.make(code("S", "wait(s)"))
    late = await one.acme.make(code("L", "return 1"))
    first = code("F", "return 1", "x", "G")
    flow = await one.acme.make(first, child("x", slow), code("G", "wait(g)", "y"), child("y", late))
    run = await one.acme.run(flow, background=True)
    await one.platform.reached("s")
    await one.platform.reached("g")
    submit, arrived, on_their_way = creation._submit, asyncio.Event(), list[Any]()

    def held_up(*given: Any) -> None:
        on_their_way.append(given)
        arrived.set()

    monkeypatch.setattr(creation, "_submit", held_up)
    one.platform.gate("g").opened.set()
    await arrived.wait()
    await one.lapse()
    await one.lease.rejoin()
    monkeypatch.setattr(creation, "_submit", submit)
    for given in on_their_way:
        submit(*given)
    await one.platform.idle()
    assert not await one.platform.rows("SELECT id FROM runs WHERE status = 'CANCELLED'")
    one.platform.gate("s").opened.set()
    for _ in range(2):  # it is found after two
        await one.sweeper.sweep()
    told = await one.acme.stream(f"/workflows/{flow}/runs/{run['id']}/stream")
    assert told[-1].data["status"] == "COMPLETED"


async def test_what_waits_behind_a_full_app_s_backlog_has_its_turn(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SWEEP_SECONDS", 3600)  # the test sweeps itself
    monkeypatch.setattr(sweeper, "_OFFERED", 10)
    monkeypatch.setattr(pace, "_LEAST", 1)
    one, two = await nodes.open(app_runs_max=1), await nodes.open(app_runs_max=1)
    two.cut()  # it hears of what waits by looking alone
    monkeypatch.setattr(two.services.queue, "offer", offered := Mock())
    monkeypatch.setattr(pace, "wanted", lambda *_: 2)
    flow = await one.acme.make(code("A", "wait(a)"))
    await one.acme.run(flow, background=True)
    await one.platform.reached("a")
    for _ in range(30):
        await one.acme.run(flow, background=True)
    monkeypatch.setattr(one.services.queue, "offer", Mock())
    one.cut()
    mine = await one.platform.globex.make(code("B", "return 1"))
    run = await one.platform.globex.run(mine, background=True)
    for _ in range(400):  # two of ten each time, and three steps to go through all
        await two.sweeper.sweep()
        if run["id"] in {call.args[1] for call in offered.call_args_list}:
            break
    else:
        raise AssertionError("nobody looked at it")
    await one.acme.ok("POST", f"/workflows/{flow}/runs/cancel", {})
