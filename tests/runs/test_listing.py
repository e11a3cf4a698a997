"""Lists of runs: filters, pages, cursors and counts, over indexes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.contract import validate
from tests.runs.platform import Caller, Platform, child, code, model

from insula.runs import endpoints, listing, reading


async def ids(caller: Caller, path: str, **query: Any) -> list[str]:
    return [run["id"] for run in await caller.ok("GET", path, params=query)]


async def test_an_app_lists_what_it_ran(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    own = [(await platform.acme.run(flow))["id"] for _ in range(2)]
    theirs = await platform.globex.discover(flow)
    path = f"/workflows/{flow}/runs"
    assert await ids(platform.acme, path) == own[::-1]
    assert await ids(platform.acme, "/runs") == own[::-1]
    assert await ids(platform.globex, f"/workflows/discover/{flow}/runs") == [theirs["id"]]
    assert await ids(platform.globex, "/runs") == [theirs["id"]]
    assert (await platform.globex.ask("GET", path)).status_code == 404
    listed = await platform.acme.ok("GET", path)
    for run in listed:
        validate(run, "RunSchema")
    assert listed[1] == await platform.acme.ok("GET", f"{path}/{own[0]}")


async def test_filters_and_their_counts(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    bad = await platform.acme.make(code("a", "fail(x)"))
    slow = await platform.acme.make(code("a", "wait(g)"))
    good = [(await platform.acme.run(flow, identifier=f"n{n % 2}"))["id"] for n in range(4)]
    failed = (await platform.acme.run(bad))["id"]
    live = (await platform.acme.run(slow, background=True))["id"]
    wanted: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [live, failed, *good[::-1]]),
        ({"status": "COMPLETED"}, good[::-1]),
        ({"status": "FAILED"}, [failed]),
        ({"status": "RUNNING"}, [live]),
        ({"status": "PENDING"}, []),
        ({"status": "ALL", "origin": "ENDPOINT"}, [live, failed, *good[::-1]]),
        ({"origin": "TEST"}, []),
        ({"identifier": "n1"}, [good[3], good[1]]),
        ({"workflow_id": flow}, good[::-1]),
        ({"workflow_id": "work_none"}, []),
        ({"since": "2020-01-01T00:00:00Z"}, [live, failed, *good[::-1]]),
        ({"since": "2020-01-01", "until": "2021-01-01T00:00:00+02:00"}, []),
        ({"until": "2100-01-01T00:00:00Z", "status": "FAILED"}, [failed]),
    ]
    for query, expected in wanted:
        answer = await platform.acme.ask("GET", "/runs", params=query)
        assert [run["id"] for run in answer.json()] == expected, query
        assert answer.headers["pagination-count"] == str(len(expected)), query
        assert "pagination-capped" not in answer.headers
    await platform.acme.ok("POST", "/runs/cancel")


@pytest.mark.parametrize(
    "query",
    [
        {"status": "DONE"},
        {"origin": "x"},
        {"since": "yesterday"},
        {"until": "2020-13-01"},
        {"take": 101},
        {"page": 0},
        {"page": 501},
        {"next": "zzz"},
        {"verbose": "some"},
    ],
)
async def test_what_is_no_filter_is_400(platform: Platform, query: dict[str, Any]) -> None:
    answer = await platform.acme.ask("GET", "/runs", params=query)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"]


async def test_pages_and_cursors_walk_all(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    made = [(await platform.acme.run(flow))["id"] for _ in range(7)][::-1]
    assert await ids(platform.acme, "/runs", take=3, page=2) == made[3:6]
    seen: list[str] = []
    query: dict[str, Any] = {"take": 3}
    for newer in range(3):
        answer = await platform.acme.ask("GET", "/runs", params=query)
        assert answer.headers["pagination-count"] == str(7 + newer)
        assert answer.headers["pagination-page"] == str(newer + 1)
        seen += [run["id"] for run in answer.json()]
        query = {"take": 3, "next": answer.headers.get("pagination-next")}
        await platform.acme.run(flow)  # newer than where the walk is: it is not in the way
    assert query["next"] is None
    assert seen == made


@pytest.mark.parametrize(("most", "count", "capped"), [(10_000, "5", False), (3, "3", True)])
async def test_what_no_counter_tells_is_counted_at_the_first_page(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, most: int, count: str, capped: bool
) -> None:
    monkeypatch.setattr(listing, "COUNTED", most)
    flow = await platform.acme.make(code("a", "return 1"))
    for _ in range(5):
        await platform.acme.run(flow)
    query = {"since": "2000-01-01T00:00:00Z", "take": "2"}
    pages = [await platform.acme.ask("GET", "/runs", params=query)]
    await platform.acme.run(flow)
    while following := pages[-1].headers.get("pagination-next"):
        pages.append(await platform.acme.ask("GET", "/runs", params={**query, "next": following}))
    assert [len(page.json()) for page in pages] == [2, 2, 1]
    for page in pages:
        assert page.headers["pagination-count"] == count
        assert ("pagination-capped" in page.headers) == capped


async def test_verbose_shows_a_model_s_raw_answer(platform: Platform) -> None:
    flow = await platform.acme.make(model("m", [{"text": "x"}]))
    await platform.acme.run(flow)
    (plain,) = await platform.acme.ok("GET", "/runs")
    (verbose,) = await platform.acme.ok("GET", "/runs", params={"verbose": "all"})
    assert "raw" not in plain["output"]["m"]["output"]
    assert "raw" not in plain["result"]
    assert "raw" in verbose["result"]
    shown = {**verbose["output"]["m"]["output"]}
    shown.pop("raw", None)
    assert shown == plain["output"]["m"]["output"]


async def test_children_are_listed_unless_their_caller_could_not_run_them(
    platform: Platform,
) -> None:
    secret = await platform.acme.make(code("z", "wait(g)"))
    public = await platform.acme.publish(child("s", secret))
    outer = await platform.acme.publish(child("p", public))
    run = await platform.globex.discover(outer, background=True)
    await platform.reached("g")
    running = await platform.globex.ask("GET", "/runs", params={"status": "RUNNING"})
    assert [one["workflow_id"] for one in running.json()] == [public, outer]
    assert running.headers["pagination-count"] == "2"
    platform.gate("g").opened.set()
    await platform.idle()
    listed = await platform.globex.ask("GET", "/runs")
    assert [one["workflow_id"] for one in listed.json()] == [public, outer]
    assert listed.headers["pagination-count"] == "2"
    assert [one["origin"] for one in listed.json()] == ["WORKFLOW", "ENDPOINT"]
    assert listed.json()[0]["parent_run_id"] == run["id"]
    (hidden,) = await platform.rows("SELECT id FROM runs WHERE hidden")
    for base in (f"/workflows/discover/{secret}", f"/workflows/{secret}"):
        for caller in (platform.globex, platform.acme):
            path = f"{base}/runs/{hidden.id}"
            assert (await caller.ask("GET", path)).status_code == 404
            assert (await caller.ask("POST", f"{path}/cancel")).status_code == 404
    assert await platform.rows("SELECT 1 FROM counters WHERE status = 'RUNNING' AND count") == []
    seen = await platform.acme.ok("GET", f"/workflows/{outer}/callers")
    assert seen[0]["runs_count"] == 1


async def test_counts_hold_while_runs_come_and_go(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    await asyncio.gather(*(platform.acme.run(flow) for _ in range(20)))
    rows = await platform.rows(
        "SELECT status, sum(count) AS n FROM counters WHERE workflow_id = :f GROUP BY status",
        f=flow,
    )
    assert {(row.status, row.n) for row in rows if row.n} == {("COMPLETED", 20)}


async def test_what_is_no_longer_found_lists_ones_own_runs_alone(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    flow = await acme.publish(code("a", "return 1"))
    path = f"/workflows/discover/{flow}/runs"
    assert await ids(globex, path) == []
    await acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    missing = await globex.ask("GET", "/workflows/discover/work_nothing/runs")
    hidden = await globex.ask("GET", path)
    assert (hidden.status_code, hidden.content) == (404, missing.content)
    await acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": True})
    run = (await globex.discover(flow))["id"]
    await acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    assert await ids(globex, path) == [run]
    assert await ids(globex, path, status="FAILED") == []
    await acme.ok("DELETE", f"/workflows/{flow}")
    assert await ids(globex, path) == [run]
    gone = await acme.ask("GET", path)
    assert (gone.status_code, gone.content) == (404, missing.content)


async def test_a_page_ends_where_its_runs_have_too_many_bytes(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await platform.acme.make(code("a", "return input.text"))
    sizes = [10, 30_000, 10, 9000, 9000, 50_000, 10, 10]
    made = [
        (await platform.acme.run(flow, input={"text": "x" * size}, retention=keep))["id"]
        for size, keep in zip(sizes, (60, 60, 0, 60, 60, 60, 60, 60), strict=True)
    ]
    # Once by what is read, once by what is shown, and once as it is.
    for loaded, shown in ((25_000, 10**9), (10**9, 25_000), (10**9, 10**9)):
        bounds = iter([loaded, shown] * 10)
        monkeypatch.setattr(endpoints, "stored_many", _read_within(bounds))
        monkeypatch.setattr(endpoints, "encode_many", _shown_within(bounds))
        seen: list[str] = []
        query: dict[str, Any] = {"take": 100}
        while True:
            answer = await platform.acme.ask("GET", "/runs", params=query)
            page = [run["id"] for run in answer.json()]
            assert 1 <= len(page) <= len(made)
            # What is stored once may be shown twice, with its step and as the result.
            most = shown if loaded > shown else 2 * loaded
            assert len(page) == 1 or len(answer.content) <= most
            assert answer.headers["pagination-count"] == "8"
            seen += page
            if "pagination-next" not in answer.headers:
                break
            query["next"] = answer.headers["pagination-next"]
        assert seen == made[::-1]
        assert (len(page) == 8) == (loaded == shown)


def _read_within(bounds: Iterator[int]) -> Any:
    """Let each call have the next of some bounds."""
    return lambda connection, rows, _: reading.stored_many(connection, rows, next(bounds))


def _shown_within(bounds: Iterator[int]) -> Any:
    return lambda looks, _, verbose: reading.encode_many(looks, next(bounds), verbose=verbose)


def _meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], Awaitable[Any]]) -> None:
    """Let something happen between what a list reads and what it shows."""
    look_many = endpoints.look_many

    async def later(*given: Any) -> Any:
        await change()
        return await look_many(*given)

    monkeypatch.setattr(endpoints, "look_many", later)


async def test_a_run_that_ends_meanwhile_is_listed_as_it_was(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    await platform.acme.run(flow, background=True)
    await platform.reached("g")

    async def ends() -> None:
        platform.gate("g").opened.set()
        await platform.idle()

    _meanwhile(monkeypatch, ends)
    (shown,) = await platform.acme.ok("GET", "/runs")
    assert (shown["status"], shown["ended_at"], shown["result"]) == ("RUNNING", None, None)
    assert "COMPLETED" not in str(shown["output"])


async def test_a_hidden_error_that_is_erased_meanwhile_is_not_listed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await platform.acme.publish(
        code("buried", "fail(hush)", "last"), code("last", "return 1"), open=False
    )
    run = await platform.globex.discover(flow)
    path = f"/workflows/discover/{flow}/runs"
    body = {"retention": 0}
    _meanwhile(
        monkeypatch, lambda: platform.globex.ok("PATCH", f"{path}/{run['id']}/retention", body)
    )
    (shown,) = await platform.globex.ok("GET", path)
    assert shown["error"] == "A step failed"
