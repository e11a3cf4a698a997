"""Cancelling: when it answers everything has stopped, whoever asks, and however often."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract import validate
from tests.runs.platform import Caller, Platform, child, code, model, open_platform

from insula.engine.events import Chunk
from insula.kit.clock import now_ms
from insula.runs import recovery
from insula.runs.cancel import cancel_many


async def begun(platform: Platform, caller: Caller, path: str, gate: str = "g", **body: Any) -> str:
    """Start a run in the background; return its path when it waits at its gate."""
    run = await caller.ok("POST", path, {"background": True, **body})
    await platform.reached(gate)
    return f"{path}/{run['id']}"


async def test_a_run_of_another_app_s_workflow_stops(platform: Platform) -> None:
    flow = await platform.acme.publish(
        code("a", "return 1", "b"), code("b", "wait(g)", "c"), code("c", "return 3")
    )
    path = await begun(platform, platform.globex, f"/workflows/discover/{flow}/runs")
    answer = await platform.globex.ok("POST", f"{path}/cancel", params={"verbose": "all"})
    validate(answer, "RunSchema")
    assert answer["status"] == "CANCELLED"
    assert answer["ended_at"] is not None
    assert answer["result"] is None
    steps = answer["output"]
    assert {key: step["status"] for key, step in steps.items()} == {
        "a": "COMPLETED",
        "b": "CANCELLED",
    }
    assert "end" in steps["b"]
    receipt = answer["cancellation"]
    assert receipt["requested_by"].startswith("key_")
    assert receipt["stopped_at"] == answer["ended_at"]
    assert [one["key"] for one in receipt["interrupted"]] == ["b"]
    assert receipt["interrupted"][0]["effect_possible"] is False
    seen = await platform.globex.ok("GET", path, params={"verbose": "all"})
    assert seen == answer
    assert "cancellation" not in await platform.globex.ok("GET", path)


async def test_a_request_that_was_sent_may_have_had_an_effect(platform: Platform) -> None:
    step = {"type": "http_request", "key": "h", "method": "GET", "url": "http://x.test/wait"}
    flow = await platform.acme.make(step)
    run = await platform.acme.run(flow, background=True)
    await platform.http.arrived.wait()
    path = f"/workflows/{flow}/runs/{run['id']}/cancel"
    answer = await platform.acme.ok("POST", path, params={"verbose": "all"})
    (told,) = answer["cancellation"]["interrupted"]
    assert (told["key"], told["effect_possible"]) == ("h", True)
    assert told["doing"].endswith("GET http://x.test/wait")


async def test_twice_and_two_at_once_get_the_same_end(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    path = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
    both = await asyncio.gather(
        *(platform.acme.ask("POST", f"{path}/cancel", params={"verbose": "all"}) for _ in range(2))
    )
    third = await platform.acme.ask("POST", f"{path}/cancel", params={"verbose": "all"})
    assert {answer.status_code for answer in (*both, third)} == {200}
    assert len({answer.content for answer in (*both, third)}) == 1


@pytest.mark.parametrize(("script", "status"), [("return 1", "COMPLETED"), ("fail(x)", "FAILED")])
async def test_a_run_that_has_ended_stays_as_it_is(
    platform: Platform, script: str, status: str
) -> None:
    flow = await platform.acme.make(code("a", script))
    run = await platform.acme.run(flow)
    assert run["status"] == status
    path = f"/workflows/{flow}/runs/{run['id']}/cancel"
    assert await platform.acme.ok("POST", path, params={"verbose": "all"}) == run
    assert await platform.rows("SELECT cancel_requested_at FROM runs") == [(None,)]


async def test_what_is_not_the_caller_s_is_the_same_404(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"))
    other = await platform.acme.publish(code("a", "return 1"))
    path = await begun(platform, platform.globex, f"/workflows/discover/{flow}/runs")
    run_id = path.rpartition("/")[2]
    initech = await platform.caller("Initech")
    answers = [
        await initech.ask("POST", f"{path}/cancel"),
        await platform.acme.ask("POST", f"{path}/cancel"),
        await platform.acme.ask("POST", f"/workflows/{flow}/runs/{run_id}/cancel"),
        await platform.globex.ask("POST", f"/workflows/{flow}/runs/{run_id}/cancel"),
        await platform.globex.ask("POST", f"/workflows/discover/{other}/runs/{run_id}/cancel"),
        await platform.globex.ask("POST", f"/workflows/discover/{flow}/runs/run_nothing/cancel"),
        await platform.globex.ask("POST", f"/workflows/discover/nothing/runs/{run_id}/cancel"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert await platform.rows("SELECT cancel_requested_at FROM runs") == [(None,)]
    assert (await platform.globex.ok("POST", f"{path}/cancel"))["status"] == "CANCELLED"


@pytest.mark.parametrize("how", ["unpublished", "blocked"])
async def test_nobody_is_stranded(platform: Platform, how: str) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"))
    path = await begun(platform, platform.globex, f"/workflows/discover/{flow}/runs")
    if how == "unpublished":
        await platform.acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    else:
        await platform.acme.ok("PUT", f"/workflows/{flow}/callers/{platform.globex.id}")
    assert (await platform.globex.ok("GET", path))["status"] == "RUNNING"
    assert (await platform.globex.ok("POST", f"{path}/cancel"))["status"] == "CANCELLED"
    started = await platform.globex.ask("POST", f"/workflows/discover/{flow}/runs", {})
    assert started.status_code == 404
    replayed = await platform.globex.ask("POST", f"{path}/replay", {"stepKey": "a"})
    assert replayed.status_code == 404


async def test_a_run_that_waits_never_begins(tmp_path: Path) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        first = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
        waiting = await platform.acme.run(flow, background=True)
        assert waiting["status"] == "PENDING"
        path = f"/workflows/{flow}/runs/{waiting['id']}"
        answer = await platform.acme.ok("POST", f"{path}/cancel", params={"verbose": "all"})
        validate(answer, "RunSchema")
        assert (answer["status"], answer["started_at"]) == ("CANCELLED", None)
        assert answer["output"] == {}
        assert answer["cancellation"]["interrupted"] == []
        await platform.acme.ok("POST", f"{first}/cancel")
        await platform.idle()
        assert platform.sandbox.evaluated == ["wait(g)"]
        counted = await platform.rows(
            "SELECT status, count FROM counters WHERE workflow_id = :flow AND count", flow=flow
        )
        assert counted == [("CANCELLED", 2)]


async def test_what_does_not_stop_is_told_so(platform: Platform) -> None:
    platform.services.stop_within = 0.05
    flow = await platform.acme.make(code("a", "stubborn(g)"))
    path = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
    refused = await platform.acme.ask("POST", f"{path}/cancel")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    still = await platform.acme.ok("GET", path, params={"verbose": "all"})
    assert still["status"] == "RUNNING"
    assert still["cancellation"]["requested_at"] is not None
    assert still["cancellation"]["stopped_at"] is None
    platform.gate("g").opened.set()
    platform.services.stop_within = 5.0
    assert (await platform.acme.ok("POST", f"{path}/cancel"))["status"] == "CANCELLED"


async def test_a_cancel_between_the_row_and_its_task(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lists runs knows of one before its starter does."""
    flow = await platform.acme.make(code("a", "return 1"))
    submit = platform.services.creating.submit
    cancelled: list[asyncio.Task[Any]] = []

    def slow(new: Any, told: Any) -> None:
        def before(result: Any, error: Any) -> None:
            path = f"/workflows/{flow}/runs/{new.row.id}/cancel"
            cancelled.append(asyncio.ensure_future(platform.acme.ok("POST", path)))
            asyncio.get_running_loop().call_later(0.02, told, result, error)

        submit(new, before)

    monkeypatch.setattr(platform.services.creating, "submit", slow)
    run = await platform.acme.run(flow)
    assert (run["status"], run["output"]) == ("CANCELLED", {})
    assert (await cancelled[0])["status"] == "CANCELLED"
    assert platform.sandbox.evaluated == []


async def test_a_starter_who_is_cancelled_leaves_no_run_without_a_task(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    submit = platform.services.creating.submit

    def cancelling(new: Any, told: Any) -> None:
        asking.cancel()
        submit(new, told)

    monkeypatch.setattr(platform.services.creating, "submit", cancelling)
    asking = asyncio.ensure_future(platform.acme.run(flow))
    await asyncio.wait([asking])
    assert asking.cancelled()
    await platform.services.database.write(lambda c: None)
    await asyncio.sleep(0)
    await platform.idle()
    assert await platform.rows("SELECT status FROM runs") == [("COMPLETED",)]


async def test_a_child_is_cancelled_before_its_parent(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "wait(g)"))
    middle = await platform.acme.make(child("m", inner))
    outer = await platform.acme.make(child("o", middle))
    path = await begun(platform, platform.acme, f"/workflows/{outer}/runs")
    answer = await platform.acme.ok("POST", f"{path}/cancel", params={"verbose": "all"})
    rows = await platform.rows("SELECT id, depth, status, ended_at FROM runs ORDER BY depth")
    assert {row.status for row in rows} == {"CANCELLED"}
    assert rows[2].ended_at <= rows[1].ended_at <= rows[0].ended_at
    told = {one["key"]: one.get("runs") for one in answer["cancellation"]["interrupted"]}
    assert told == {"o": None, "m": [rows[1].id], "z": [rows[1].id, rows[2].id]}
    inside = await platform.acme.ok(
        "GET", f"/workflows/{inner}/runs/{rows[2].id}", params={"verbose": "all"}
    )
    assert inside["cancellation"]["requested_by"] is None
    assert inside["parent_run_id"] == rows[1].id


async def test_a_child_that_is_cancelled_by_itself_fails_its_step(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.make(child("o", inner))
    path = await begun(platform, platform.acme, f"/workflows/{outer}/runs")
    (row,) = await platform.rows("SELECT id FROM runs WHERE depth = 1")
    answer = await platform.acme.ok("POST", f"/workflows/{inner}/runs/{row.id}/cancel")
    assert answer["status"] == "CANCELLED"
    await platform.idle()
    parent = await platform.acme.ok("GET", path)
    assert (parent["status"], parent["output"]["o"]["status"]) == ("FAILED", "FAILED")
    assert parent["output"]["o"]["output"]["status"] == "CANCELLED"


async def test_a_cancel_while_a_child_is_being_stored(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = await platform.acme.make(code("z", "return 1"))
    outer = await platform.acme.make(child("o", inner))
    submit = platform.services.database.submit
    asked: list[asyncio.Task[Any]] = []

    def slow(unit: Any, fenced: bool = False) -> Any:
        future = submit(unit, fenced)
        live = list(platform.services.live)
        if not asked and any(one.row.depth == 1 and one.task is None for one in live):
            root = next(one for one in live if one.row.depth == 0)
            root.stop("cancel")
            asked.append(asyncio.ensure_future(asyncio.shield(root.finished)))
        return future

    monkeypatch.setattr(platform.services.database, "submit", slow)
    run = await platform.acme.run(outer)
    assert run["status"] == "CANCELLED"
    assert asked
    assert len(platform.services.live) == 0
    assert await platform.rows("SELECT status FROM runs") == [("CANCELLED",), ("CANCELLED",)]
    assert platform.sandbox.evaluated == []


async def test_races_with_completion_have_one_end(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"), code("b", "return 2"))
    ends = set()
    for turns in range(24):
        platform.sandbox.gates.pop("g", None)
        path = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
        platform.gate("g").opened.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        answer = await platform.acme.ok("POST", f"{path}/cancel")
        assert answer == await platform.acme.ok("GET", path)
        told = await platform.acme.stream(f"{path}/stream")
        assert [one.event for one in told].count("run") == 2
        assert told[-1].data == answer
        ends.add(answer["status"])
    assert ends <= {"CANCELLED", "COMPLETED"}
    await platform.idle()


async def test_a_model_keeps_what_it_had_said(platform: Platform) -> None:
    flow = await platform.acme.make(
        model("m", [{"text": "one two three", "token_delay_ms": 60_000}])
    )
    run = await platform.acme.run(flow, background=True)
    path = f"/workflows/{flow}/runs/{run['id']}"
    async with asyncio.timeout(5), aclosing(platform.services.journal.follow(run["id"])) as told:
        async for _, events in told:
            if any(isinstance(event, Chunk) for event in events):
                break
    answer = await platform.acme.ok("POST", f"{path}/cancel")
    step = answer["output"]["m"]
    assert (step["status"], step["output"]["message"]) == ("CANCELLED", "one")


async def test_many_are_cancelled_by_a_filter(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    for name in ("x", "x", "y"):
        await platform.acme.run(flow, background=True, identifier=name)
    await platform.acme.run(await platform.acme.make(code("a", "return 1")), identifier="x")
    answer = await platform.acme.ok("POST", "/runs/cancel", {"identifier": "x"})
    assert answer["count"] == len(answer["runs"]) == 2
    left = await platform.acme.ok("GET", "/runs", params={"status": "RUNNING"})
    assert [run["identifier"] for run in left] == ["y"]
    assert (await platform.globex.ok("POST", "/runs/cancel"))["count"] == 0
    assert (await platform.acme.ok("POST", "/runs/cancel"))["count"] == 1


@pytest.mark.parametrize("where", ["query", "body"])
async def test_a_filter_stands_in_the_query_or_in_the_body(platform: Platform, where: str) -> None:
    async def asked(**wanted: str) -> httpx.Response:
        given: dict[str, Any] = {"params" if where == "query" else "body": wanted}
        return await platform.acme.ask("POST", "/runs/cancel", **given)

    flow = await platform.acme.make(code("a", "wait(g)"))
    for name in ("x", "y"):
        await platform.acme.run(flow, background=True, identifier=name)
    for wrong in ({"since": "yesterday"}, {"status": "COMPLETED"}, {"identifer": "x"}):
        refused = await asked(**wrong)
        assert refused.status_code == 400
        assert refused.json()["errors"][0]["validation"] == where
    assert (await asked(identifier="x", status="RUNNING")).json()["count"] == 1
    both = await platform.acme.ok(
        "POST", "/runs/cancel", {"identifier": "y"}, params={"identifier": "x", "workflow_id": flow}
    )
    assert both["count"] == 1


async def test_a_child_is_cancelled_by_a_filter_that_only_it_matches(platform: Platform) -> None:
    inner = await platform.acme.make(code("a", "wait(g)"))
    outer = await platform.acme.make(
        {**child("c", inner), "throw_on_error": False, "destinations": ["z"]},
        code("z", "return 1"),
    )
    run = await begun(platform, platform.acme, f"/workflows/{outer}/runs")
    answer = await platform.acme.ok("POST", "/runs/cancel", {"workflow_id": inner})
    (found,) = await platform.acme.ok("GET", "/runs", params={"workflow_id": inner})
    assert (answer["runs"], found["status"]) == ([found["id"]], "CANCELLED")
    await platform.idle()
    assert (await platform.acme.ok("GET", run))["status"] == "COMPLETED"


async def test_more_are_cancelled_than_are_looked_for_at_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.runs.cancel._FOUND_AT_ONCE", 2)
    flow = await platform.acme.make(code("a", "wait(g)"))
    ids = [(await platform.acme.run(flow, background=True))["id"] for _ in range(5)]
    answer = await platform.acme.ok("POST", "/runs/cancel")
    assert (answer["count"], set(answer["runs"])) == (5, set(ids))


async def test_a_filter_is_not_done_while_one_that_matches_has_not_stopped(
    platform: Platform,
) -> None:
    platform.services.stop_within = 0.05
    stuck = await platform.acme.make(code("a", "stubborn(s)"))
    await platform.acme.run(stuck, background=True)
    await platform.reached("s")
    refused = await platform.acme.ask("POST", "/runs/cancel")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    platform.gate("s").opened.set()
    await platform.idle()
    assert (await platform.acme.ok("POST", "/runs/cancel"))["count"] == 0


async def test_one_of_many_that_does_not_stop_holds_up_no_other(platform: Platform) -> None:
    platform.services.stop_within = 0.05
    stuck = await platform.acme.make(code("a", "stubborn(s)"))
    flow = await platform.acme.make(code("a", "wait(g)"))
    ids = [
        (await platform.acme.run(stuck, background=True))["id"],
        (await platform.acme.run(flow, background=True))["id"],
    ]
    await platform.reached("s")
    assert await cancel_many(platform.services, [*ids, "run_nothing"], "test") == ids[1:]
    platform.gate("s").opened.set()
    await platform.idle()


async def test_the_owner_cancels_what_callers_run(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"))
    own = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
    theirs = await begun(platform, platform.globex, f"/workflows/discover/{flow}/runs")
    path = f"/workflows/{flow}/runs/cancel"
    assert (await platform.globex.ask("POST", path)).status_code == 404
    answer = await platform.acme.ok("POST", path, params={"scope": "callers"})
    assert answer == {"count": 1}
    seen = await platform.globex.ok("GET", theirs, params={"verbose": "all"})
    assert seen["status"] == "CANCELLED"
    assert seen["cancellation"]["requested_by"] == "owner"
    assert (await platform.acme.ok("GET", own))["status"] == "RUNNING"
    assert await platform.acme.ok("POST", path) == {"count": 1}
    assert (await platform.acme.ok("GET", own))["status"] == "CANCELLED"


async def test_deleting_a_workflow_stops_it_and_leaves_callers_their_runs(
    platform: Platform,
) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"))
    theirs = await begun(platform, platform.globex, f"/workflows/discover/{flow}/runs")
    await platform.acme.ok("DELETE", f"/workflows/{flow}")
    seen = await platform.globex.ok("GET", theirs, params={"verbose": "all"})
    assert seen["status"] == "CANCELLED"
    assert seen["cancellation"]["requested_by"] == "deleted"
    assert (await platform.globex.ok("POST", f"{theirs}/cancel"))["id"] == seen["id"]
    assert [run["id"] for run in await platform.globex.ok("GET", "/runs")] == [seen["id"]]
    assert len(await platform.globex.stream(f"{theirs}/stream")) == 4
    assert (await platform.globex.ok("PATCH", f"{theirs}/retention", {"retention": 0}))[
        "output"
    ] == {}


@pytest.mark.parametrize("is_open", [True, False])
async def test_deleting_an_app_leaves_callers_their_runs(platform: Platform, is_open: bool) -> None:
    flow = await platform.acme.publish(code("a", "wait(g)"), open=is_open)
    theirs = await begun(platform, platform.globex, f"/workflows/discover/{flow}/runs")
    admin = {"authorization": f"Bearer {platform.insula.settings.admin_key.get_secret_value()}"}  # type: ignore[union-attr]  # it is set
    gone = await platform.client.delete(f"/apps/{platform.acme.id}", headers=admin)
    assert gone.status_code == 200, gone.text
    seen = await platform.globex.ok("GET", theirs)
    assert seen["status"] == "CANCELLED"
    assert [run["id"] for run in await platform.globex.ok("GET", "/runs")] == [seen["id"]]


async def test_a_cancel_while_the_run_is_taken_over(tmp_path: Path) -> None:
    async with open_platform(tmp_path) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        path = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
        callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers) as platform:
        await platform.reached("g")
        run_id = path.rpartition("/")[2]
        live = platform.services.live.get(run_id)
        assert live is not None
        live.stop("shutdown")
        await live.finished
        await platform.change("UPDATE runs SET owner = 'node_dead'")
        # As if the sweeper and the caller found it in the same moment.
        both = await asyncio.gather(
            recovery.recover(platform.services, [run_id]),
            platform.acme.ask("POST", f"{path}/cancel"),
        )
        assert both[1].status_code == 200
        assert both[1].json()["status"] == "CANCELLED"


async def test_a_run_of_a_living_owner_elsewhere_is_not_taken(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    path = await begun(platform, platform.acme, f"/workflows/{flow}/runs")
    run_id = path.rpartition("/")[2]
    live = platform.services.live.get(run_id)
    assert live is not None
    live.stop("shutdown")
    await live.finished
    await platform.change("UPDATE runs SET owner = 'node_far'")
    await platform.change(
        "INSERT INTO nodes (token, name, expires_at, started_at)"
        " VALUES ('node_far', 'far', :expiry, 0)",
        expiry=now_ms() + 6_000,
    )
    refused = await platform.acme.ask("POST", f"{path}/cancel")
    assert refused.status_code == 503
    assert (await platform.rows("SELECT owner FROM runs")) == [("node_far",)]
