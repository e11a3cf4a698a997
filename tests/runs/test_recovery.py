"""Recovery: a process that died in any phase; what it had finished is not repeated."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import Caller, Platform, child, code, model, open_platform

from insula.engine.events import (
    Event,
    RunStarted,
    StepEnded,
    StepStarted,
    UnitStarted,
    encode_events,
)
from insula.errors import Unavailable
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw, decode, encode
from insula.runs import recovery

DATABASES = ("sqlite", "postgres")

AT = now_ms()
Steps = list[dict[str, Any]]


async def insert(platform: Platform, flow: str, *events: Event, **columns: Any) -> str:
    """Put a run of a process that died into the database, with its journal so far."""
    run_id = str(columns.pop("id", None) or new_id("run"))
    versions = await platform.rows("SELECT id FROM versions WHERE workflow_id = :flow", flow=flow)
    row: dict[str, Any] = {
        "id": run_id,
        "app_id": platform.acme.id,
        "workflow_app_id": platform.acme.id,
        "workflow_id": flow,
        "version_id": versions[0].id,
        "version": 1,
        "root_id": columns.get("root_id", run_id),
        "depth": 0,
        "hidden": False,
        "status": "RUNNING",
        "origin": "ENDPOINT",
        "background": False,
        "options": b"{}",
        "owner": "node_dead",
        "seq": len(events),
        "credits": 0.0,
        "started_at": AT,
        "created_at": AT,
        "updated_at": AT,
        **columns,
    }
    names = ", ".join(row)
    await platform.change(
        f"INSERT INTO runs ({names}) VALUES (:{', :'.join(row)})",
        **row,
    )
    await platform.change(
        "INSERT INTO run_data (run_id, input) VALUES (:id, :input)", id=run_id, input=b'{"x":1}'
    )
    if events:
        await platform.change(
            "INSERT INTO run_events (run_id, seq, events) VALUES (:id, :seq, :events)",
            id=run_id,
            seq=len(events),
            events=encode_events(list(events)),
        )
    return run_id


async def swept(platform: Platform) -> None:
    """Sweep until no run that anybody had begun is left; the server itself may be at it, too."""
    live = "SELECT id FROM runs WHERE ended_at IS NULL AND owner IS NOT NULL"
    async with asyncio.timeout(20):
        while True:
            await platform.sweeper.sweep()
            await platform.idle()
            if not await platform.rows(live):
                return
            await asyncio.sleep(0.01)


async def read(platform: Platform, flow: str, run_id: str) -> Any:
    path = f"/workflows/{flow}/runs/{run_id}"
    return await platform.acme.ok("GET", path, params={"verbose": "all"})


BEGUN = RunStarted(AT)
A_DONE = (
    StepStarted(AT, "a", "code", attempt=1),
    StepEnded(AT + 1, "a", "COMPLETED", output=Raw(b"1")),
)
B_OPEN = StepStarted(AT + 2, "b", "code", attempt=1)


@pytest.mark.parametrize(
    ("events", "again"),
    [
        ((), ["1", "2"]),
        ((BEGUN,), ["1", "2"]),
        ((BEGUN, A_DONE[0]), ["1", "2"]),
        ((BEGUN, *A_DONE), ["2"]),
        ((BEGUN, *A_DONE, B_OPEN), ["2"]),
        ((BEGUN, *A_DONE, B_OPEN, StepEnded(AT + 3, "b", "COMPLETED", output=Raw(b"2"))), []),
    ],
)
async def test_a_run_goes_on_where_its_journal_ends(
    platform: Platform, events: tuple[Event, ...], again: list[str]
) -> None:
    flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
    run_id = await insert(platform, flow, *events)
    await swept(platform)
    run = await read(platform, flow, run_id)
    assert (run["status"], run["result"]) == ("COMPLETED", 2)
    assert platform.sandbox.evaluated == again
    (row,) = await platform.rows("SELECT owner FROM runs")
    assert row.owner == platform.services.token


HOUR = 60 * 60 * 1000


@pytest.mark.parametrize("ahead", [5 * HOUR, -5 * HOUR])
async def test_time_without_a_process_does_not_count(platform: Platform, ahead: int) -> None:
    flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
    began = now_ms() - ahead
    events = [RunStarted(began), StepStarted(began + 1000, "a", "code", attempt=1)]
    run_id = await insert(platform, flow, *events, started_at=began)
    await swept(platform)
    run = await read(platform, flow, run_id)
    assert (run["status"], run["result"]) == ("COMPLETED", 2)
    (row,) = await platform.rows("SELECT options FROM runs WHERE id = :id", id=run_id)
    assert decode(row.options)["spent"]["ms"] == 1000
    # What was spent adds up, takeover after takeover; a replay has all its time.
    spent = encode({"spent": {"ms": 5000, "since": began + 400}})
    run_id = await insert(platform, flow, *events, started_at=began - 9, options=spent)
    await swept(platform)
    (row,) = await platform.rows("SELECT options FROM runs WHERE id = :id", id=run_id)
    assert decode(row.options)["spent"]["ms"] == 5600
    path = f"/workflows/{flow}/runs/{run_id}/replay"
    await platform.acme.ok("POST", path, {"stepKey": "b"})
    rows = await platform.rows("SELECT options FROM runs WHERE replay_of = :id", id=run_id)
    assert "spent" not in decode(rows[0].options)


async def test_a_run_that_had_spent_its_time_fails_when_it_is_taken_over(
    platform: Platform,
) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    events = [BEGUN, StepStarted(AT + 9000, "a", "code", attempt=1)]
    run_id = await insert(platform, flow, *events, options=encode({"timeout": 9}))
    await swept(platform)
    run = await read(platform, flow, run_id)
    assert (run["status"], run["error_code"]) == ("FAILED", "timeout")


async def test_a_run_whose_cancel_was_requested_starts_nothing(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
    asked = {"cancel_requested_at": AT + 5, "cancel_requested_by": "key_x"}
    run_id = await insert(platform, flow, BEGUN, *A_DONE, B_OPEN, **asked)
    fresh = await insert(platform, flow, **asked)
    waiting = await insert(platform, flow, status="PENDING", owner=None, started_at=None, **asked)
    await swept(platform)
    run = await read(platform, flow, run_id)
    assert run["status"] == "CANCELLED"
    assert {key: step["status"] for key, step in run["output"].items()} == {
        "a": "COMPLETED",
        "b": "CANCELLED",
    }
    (told,) = run["cancellation"]["interrupted"]
    assert (told["key"], told["effect_possible"]) == ("b", True)
    async with asyncio.timeout(5):  # what was offered to the queue is taken from it in its turn
        while (await read(platform, flow, waiting))["ended_at"] is None:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.002)
    for other in (fresh, waiting):
        assert (await read(platform, flow, other))["status"] == "CANCELLED"
    assert platform.sandbox.evaluated == []


async def test_after_three_interruptions_a_step_fails(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    again = [UnitStarted(AT, "a", number) for number in (2, 3)]
    run_id = await insert(platform, flow, BEGUN, A_DONE[0], *again)
    await swept(platform)
    run = await read(platform, flow, run_id)
    assert (run["status"], run["output"]["a"]["status"]) == ("FAILED", "FAILED")
    assert run["error_code"] == "interrupted"
    assert platform.sandbox.evaluated == []


async def test_a_child_that_ended_before_its_parent_saw_it_is_not_run_again(
    platform: Platform,
) -> None:
    inner = await platform.acme.make(code("z", "return 9"))
    outer = await platform.acme.make(child("o", inner))
    child_id, root_id = new_id("run"), new_id("run")
    opened = (
        BEGUN,
        StepStarted(AT, "o", "workflow"),
        UnitStarted(AT, "o", 1, child=child_id),
    )
    await insert(platform, outer, *opened, id=root_id)
    await insert(
        platform,
        inner,
        BEGUN,
        StepStarted(AT, "z", "code", attempt=1),
        StepEnded(AT, "z", "COMPLETED", output=Raw(b"9")),
        id=child_id,
        root_id=root_id,
        parent_id=root_id,
        parent_key="o",
        depth=1,
        origin="WORKFLOW",
    )
    await swept(platform)
    run = await read(platform, outer, root_id)
    assert run["status"] == "COMPLETED"
    output = run["output"]["o"]["output"]
    assert (output["run_id"], output["result"]) == (child_id, 9)
    assert (await read(platform, inner, child_id))["status"] == "COMPLETED"
    assert platform.sandbox.evaluated == []


async def test_a_child_whose_row_was_never_made_is_made_under_its_id(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "return 9"))
    outer = await platform.acme.make(child("o", inner))
    child_id = new_id("run")
    root_id = await insert(
        platform,
        outer,
        BEGUN,
        StepStarted(AT, "o", "workflow"),
        UnitStarted(AT, "o", 1, child=child_id),
    )
    await swept(platform)
    run = await read(platform, outer, root_id)
    assert run["output"]["o"]["output"]["run_id"] == child_id
    assert len(await platform.rows("SELECT id FROM runs")) == 2


async def tree(platform: Platform, **root: Any) -> list[tuple[str, str]]:
    """Insert a run, its child and its grandchild, all in the midst; return workflows and ids."""
    third = await platform.acme.make(code("z", "return 9"))
    second = await platform.acme.make(child("m", third))
    first = await platform.acme.make(child("o", second))
    ids = [new_id("run") for _ in range(3)]
    for depth, (flow, key) in enumerate(((first, "o"), (second, "m"), (third, "z"))):
        below = {"child": ids[depth + 1]} if depth < 2 else {}
        kind = "workflow" if depth < 2 else "code"
        place: dict[str, Any] = {"id": ids[depth], "depth": depth, "root_id": ids[0]}
        if depth:
            place |= {"parent_id": ids[depth - 1], "parent_key": "om"[depth - 1]}
        await insert(
            platform,
            flow,
            BEGUN,
            StepStarted(AT, key, kind),
            UnitStarted(AT, key, 1, **below),
            **place,
            **(root if not depth else {}),
        )
    return list(zip((first, second, third), ids, strict=True))


async def test_a_tree_goes_on_from_its_root(platform: Platform) -> None:
    runs = await tree(platform)
    await swept(platform)
    for flow, run_id in runs:
        assert (await read(platform, flow, run_id))["status"] == "COMPLETED"
    assert platform.sandbox.evaluated == ["9"]
    assert len(await platform.rows("SELECT id FROM runs")) == 3


async def test_a_cancelled_tree_ends_from_its_leaves(platform: Platform) -> None:
    runs = await tree(platform, cancel_requested_at=AT, cancel_requested_by="key_x")
    await swept(platform)
    seqs = []
    for flow, run_id in runs:
        assert (await read(platform, flow, run_id))["status"] == "CANCELLED"
        (row,) = await platform.rows("SELECT ended_at FROM runs WHERE id = :id", id=run_id)
        seqs.append(row.ended_at)
    assert seqs == sorted(seqs, reverse=True)
    assert platform.sandbox.evaluated == []


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_a_tree_that_is_cancelled_while_it_is_taken_over_ends_as_a_whole(
    platform: Platform, turns: int
) -> None:
    """Its root may not have come to its child again when the cancel comes."""
    runs = await tree(platform)
    live = await recovery.take_over(platform.services, runs[0][1])
    assert live is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    live.stop("cancel")
    await live.finished
    for flow, run_id in runs:
        assert (await read(platform, flow, run_id))["status"] == "CANCELLED"


async def test_a_child_in_the_midst_is_cancelled_before_its_parent_is_back(
    platform: Platform,
) -> None:
    runs = await tree(platform)
    flow, run_id = runs[1]
    answer = await platform.acme.ok("POST", f"/workflows/{flow}/runs/{run_id}/cancel")
    assert answer["status"] == "CANCELLED"
    assert (await read(platform, *runs[2]))["status"] == "CANCELLED"
    await swept(platform)
    root = await read(platform, *runs[0])
    assert (root["status"], root["output"]["o"]["output"]["status"]) == ("FAILED", "CANCELLED")
    assert platform.sandbox.evaluated == []


async def test_a_child_whose_parent_has_ended_ends(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    root = await platform.acme.run(flow)
    lost = await insert(
        platform, flow, BEGUN, root_id=root["id"], parent_id=root["id"], parent_key="o", depth=1
    )
    await swept(platform)
    assert (await read(platform, flow, lost))["status"] == "CANCELLED"


async def test_a_child_that_its_parent_gave_up_ends_while_the_parent_runs(
    platform: Platform,
) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    root = await platform.acme.run(flow, background=True)
    await platform.reached("g")
    lost = await insert(
        platform, flow, BEGUN, root_id=root["id"], parent_id=root["id"], parent_key="o", depth=1
    )
    await platform.sweeper.sweep()
    assert (await read(platform, flow, lost))["status"] == "CANCELLED"
    assert (await read(platform, flow, root["id"]))["status"] == "RUNNING"
    platform.gate("g").opened.set()
    await platform.idle()


async def test_a_run_that_nobody_executes_here_is_found(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    run_id = await insert(platform, flow, BEGUN, owner=platform.services.token)
    await swept(platform)
    assert (await read(platform, flow, run_id))["status"] == "COMPLETED"


async def test_a_run_that_cannot_be_equipped_now_is_begun_later(platform: Platform) -> None:
    """The database is away for a moment, just when the workflow's variables are read."""
    equip, away = platform.services.equip, [Unavailable("Not now", retry_after=1)]

    async def refuses_once(*given: Any) -> Any:
        if away:
            raise away.pop()
        return await equip(*given)

    platform.services.equip = refuses_once
    flow = await platform.acme.make(code("a", "return 1"))
    run = await platform.acme.run(flow, background=True)
    await platform.idle()
    assert (await read(platform, flow, run["id"]))["status"] == "RUNNING"
    await swept(platform)
    assert (await read(platform, flow, run["id"]))["status"] == "COMPLETED"


async def test_a_run_whose_version_is_gone_fails_and_holds_up_nobody(
    platform: Platform,
) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    lost = await insert(platform, flow, BEGUN, *A_DONE[:1], version_id="workv_gone")
    good = await insert(platform, flow, BEGUN)
    await swept(platform)
    assert (await read(platform, flow, good))["status"] == "COMPLETED"
    run = await read(platform, flow, lost)
    assert (run["status"], run["output"]["a"]["status"]) == ("FAILED", "CANCELLED")
    assert run["error"]


async def test_a_broken_journal_holds_up_nobody(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    broken = await insert(platform, flow, BEGUN)
    await platform.change("UPDATE run_events SET events = :junk", junk=b"[junk")
    good = await insert(platform, flow, BEGUN)
    assert (await recovery.recover(platform.services, [broken, good])).count == 1
    await platform.idle()
    assert (await read(platform, flow, good))["status"] == "COMPLETED"


@asynccontextmanager
async def restarted(
    folder: Path, url: str | None, work: Callable[[Platform], Awaitable[None]]
) -> AsyncIterator[Platform]:
    """Do something, stop the server in the midst, and start it again."""
    async with open_platform(folder, database_url=url) as platform:
        await work(platform)
        callers: tuple[Caller, ...] = (platform.acme, platform.globex)
    async with open_platform(folder, callers, database_url=url) as platform:
        yield platform


async def test_a_stopped_server_goes_on_with_its_runs(
    tmp_path: Path, database_url: str | None
) -> None:
    made: list[str] = []

    async def work(platform: Platform) -> None:
        flow = await platform.acme.make(
            code("a", "return 1", "m"),
            model("m", [{"text": "x", "credits": 2}], "b", loop='index < 3 ? {"i": 1} : null'),
            code("b", "wait(g)", "c"),
            code("c", "return 3"),
        )
        run = await platform.acme.run(flow, background=True)
        made[:] = [flow, run["id"]]
        await platform.reached("g")

    async with restarted(tmp_path, database_url, work) as platform:
        await platform.reached("g")
        platform.gate("g").opened.set()
        await platform.idle()
        run = await read(platform, made[0], made[1])
        assert (run["status"], run["result"]) == ("COMPLETED", 3)
        assert run["output"]["b"]["attempts"] == 2
        assert run["usage"]["total"] == 6
        assert [one for one in platform.sandbox.evaluated if one != "wait(g)"] == ["3"]
        path = f"/workflows/{made[0]}/runs/{made[1]}/stream"
        whole = await platform.acme.stream(path)
        assert [one.id for one in whole] == list(range(1, len(whole) + 1))


async def test_a_waiting_caller_is_told_when_the_server_stops(
    tmp_path: Path, database_url: str | None
) -> None:
    asked: list[asyncio.Future[Any]] = []

    async def work(platform: Platform) -> None:
        flow = await platform.acme.make(code("a", "wait(g)"))
        asked.append(
            asyncio.ensure_future(platform.acme.ask("POST", f"/workflows/{flow}/runs", {}))
        )
        await platform.reached("g")
        platform.services.draining = True
        for live in platform.services.live:
            live.stop("shutdown")
        answer = await asked[0]
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        refused = await platform.acme.ask("POST", f"/workflows/{flow}/runs", {})
        assert refused.status_code == 503

    async with restarted(tmp_path, database_url, work) as platform:
        await platform.reached("g")
        platform.gate("g").opened.set()
        await platform.idle()
        assert await platform.rows("SELECT status FROM runs") == [("COMPLETED",)]


async def test_a_request_to_cancel_outlives_the_process(
    tmp_path: Path, database_url: str | None
) -> None:
    made: list[str] = []

    async def work(platform: Platform) -> None:
        platform.services.stop_within = 0.02
        flow = await platform.acme.make(code("a", "stubborn(g)"))
        run = await platform.acme.run(flow, background=True)
        made[:] = [flow, run["id"]]
        await platform.reached("g")
        path = f"/workflows/{flow}/runs/{run['id']}"
        assert (await platform.acme.ask("POST", f"{path}/cancel")).status_code == 503
        # The process dies here: nothing of the end is written.
        (live,) = platform.services.live
        live.log.drop()
        platform.gate("g").opened.set()

    async with restarted(tmp_path, database_url, work) as platform:
        await platform.idle()
        run = await read(platform, made[0], made[1])
        assert run["status"] == "CANCELLED"
        assert run["cancellation"]["requested_by"].startswith("key_")
        assert platform.sandbox.evaluated == []
