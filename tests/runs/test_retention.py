"""Retention: what is erased, when, and that it is gone from the disk."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.contract import validate
from tests.runs.platform import Platform, child, code, open_platform

from insula.kit import json
from insula.runs import change, reclaim
from insula.runs.erasing import erase_due
from insula.runs.reclaim import OldRows, remove_old_rows
from insula.runs.retention import stricter

DATABASES = ("sqlite", "postgres")

SECRET = "needle-in-the-haystack"
DAY = 24 * 60 * 60 * 1000


def on_disk(folder: Path, pattern: str = "insula.db*") -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob(pattern) if path.is_file())


def is_erased(run: Any) -> bool:
    return (run["input"], run["output"], run["result"]) == (None, {}, None)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (60, 60),
        (0.5, 0.5),
        ({"max_age_in_seconds": 60}, 60),
        ({"max_age_in_seconds": 60, "preserve_on_failure": True}, 60),
        (-1, None),
        (None, 100),
    ],
)
async def test_when_data_is_due(tmp_path: Path, given: object, seconds: float | None) -> None:
    async with open_platform(tmp_path, retention=100) as platform:
        flow = await platform.acme.make(code("a", "return 1"))
        run = await platform.acme.run(flow, retention=given)
        validate(run, "RunSchema")
        (row,) = await platform.rows("SELECT ended_at, retention_due_at FROM runs")
        due = None if seconds is None else row.ended_at + seconds * 1000
        assert row.retention_due_at == due
        assert (run["retention_due_at"] is None) == (seconds is None)


async def test_the_run_s_wins_over_the_workflow_s(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"), retention=50)
    assert (await platform.acme.run(flow))["retention"] == {"max_age_in_seconds": 50}
    own = await platform.acme.run(flow, retention=70)
    assert own["retention"] == {"max_age_in_seconds": 70}


async def test_zero_erases_with_the_end_and_the_answer_has_it_all(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", f'return "{SECRET}"'))
    run = await platform.acme.run(flow, retention=0, input={"x": 1})
    assert (run["result"], run["input"]) == (SECRET, {"x": 1})
    later = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{run['id']}")
    validate(later, "RunSchema")
    assert is_erased(later)
    for name in ("status", "started_at", "ended_at", "retention_due_at", "workflow_version"):
        assert later[name] == run[name]
    for table in ("run_data", "run_events"):
        assert await platform.rows(f"SELECT * FROM {table}") == []
    (listed,) = await platform.acme.ok("GET", "/runs")
    assert listed == later


async def test_a_failed_run_loses_its_words_or_is_preserved(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "fail(words)"))
    run = await platform.acme.run(flow, retention=0)
    assert run["error"] == "It failed: words"
    later = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{run['id']}")
    assert later["status"] == "FAILED"
    assert "error" not in later
    keep = {"max_age_in_seconds": 0, "preserve_on_failure": True}
    kept = await platform.acme.run(flow, retention=keep)
    assert kept["retention_due_at"] is None
    again = await platform.acme.ok("GET", f"/workflows/{flow}/runs/{kept['id']}")
    assert again == kept


async def test_a_receipt_loses_its_details(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(flow, background=True, retention=0)
    await platform.reached("g")
    path = f"/workflows/{flow}/runs/{run['id']}"
    told = await platform.acme.ok("POST", f"{path}/cancel", params={"verbose": "all"})
    assert len(told["cancellation"]["interrupted"]) == 1
    later = await platform.acme.ok("GET", path, params={"verbose": "all"})
    assert later["cancellation"] == {**told["cancellation"], "interrupted": []}


async def test_what_is_due_is_erased_and_gone_from_the_disk(
    platform: Platform, tmp_path: Path
) -> None:
    flow = await platform.acme.make(code("a", f'return "{SECRET}"'))
    run = await platform.acme.run(flow, input={"text": SECRET})
    failed = await platform.acme.run(await platform.acme.make(code("a", f"fail({'n' * 40})")))
    await platform.change("UPDATE runs SET retention_due_at = 1")
    # The draft and the version hold the words, too: only what the runs hold is looked for.
    await platform.change("UPDATE versions SET body = '{}'")
    await platform.change("UPDATE workflows SET body = '{}'")
    assert await erase_due(platform.services) == 2
    assert await erase_due(platform.services) == 0
    await platform.services.database.reclaim()
    stored = on_disk(tmp_path)
    assert SECRET.encode() not in stored
    assert b"It failed" not in stored
    (row,) = await platform.rows("SELECT erased_at, error FROM runs WHERE id = :id", id=run["id"])
    assert row.erased_at is not None
    assert failed["error"].startswith("It failed")


async def test_files_of_the_input_go_with_it(platform: Platform, tmp_path: Path) -> None:
    fields = {"doc": {"type": "file", "order": 0}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["a"]}
    flow = await platform.acme.make(start, code("a", "return 1"))
    doc = {"data": "aGVsbG8=", "name": "a.txt", "type": "text/plain", "encoding": "base64"}
    run = await platform.acme.run(flow, input={"doc": doc})
    assert run["input"]["doc"]["id"].startswith("file_")
    assert b"hello" in on_disk(tmp_path, "files/**/*")
    await platform.change("UPDATE runs SET retention_due_at = 1")
    await erase_due(platform.services)
    assert await platform.rows("SELECT id FROM files") == []
    assert b"hello" not in on_disk(tmp_path, "files/**/*")


async def test_it_is_changed_afterwards(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    run = await platform.globex.discover(flow)
    path = f"/workflows/discover/{flow}/runs/{run['id']}"
    longer = await platform.globex.ok("PATCH", f"{path}/retention", {"retention": 90_000_000})
    assert longer["retention"] == {"max_age_in_seconds": 90_000_000}
    assert longer["retention_due_at"] > run["retention_due_at"]
    same = await platform.globex.ok("PATCH", f"{path}/retention", {})
    assert same["retention"] == longer["retention"]
    standard = await platform.globex.ok("PATCH", f"{path}/retention", {"retention": None})
    assert (standard["retention"], standard["retention_due_at"]) == (
        None,
        run["retention_due_at"],
    )
    kept = await platform.globex.ok("PATCH", f"{path}/retention", {"retention": -1})
    assert kept["retention_due_at"] is None
    gone = await platform.globex.ok("PATCH", f"{path}/retention", {"retention": 0})
    assert is_erased(gone)
    late = await platform.globex.ask("PATCH", f"{path}/retention", {"retention": 60})
    assert late.status_code == 409
    for wrong in (-2, "long", {"max_age_in_seconds": "1"}, [], True):
        refused = await platform.globex.ask("PATCH", f"{path}/retention", {"retention": wrong})
        assert refused.status_code == 400, wrong
    stranger = f"/workflows/{flow}/runs/{run['id']}/retention"
    assert (await platform.acme.ask("PATCH", stranger, {"retention": 0})).status_code == 404


async def test_it_is_changed_while_the_run_is_live(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(flow, background=True)
    await platform.reached("g")
    path = f"/workflows/{flow}/runs/{run['id']}"
    live = await platform.acme.ok("PATCH", f"{path}/retention", {"retention": 0})
    assert (live["status"], live["retention_due_at"]) == ("RUNNING", None)
    platform.gate("g").opened.set()
    await platform.idle()
    assert is_erased(await platform.acme.ok("GET", path))


@pytest.mark.parametrize(("before", "after"), [(900, 0), (None, 70), (900, -1), (0, 0), (0, 70)])
async def test_it_is_changed_while_the_run_ends(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, before: int | None, after: int
) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(flow, background=True, retention=before)
    await platform.reached("g")
    write = platform.services.database.write

    async def ends_meanwhile(unit: Any) -> Any:
        written = await write(unit)
        if getattr(unit, "func", None) is change._change:
            platform.gate("g").opened.set()
            await platform.idle()
        return written

    monkeypatch.setattr(platform.services.database, "write", ends_meanwhile)
    path = f"/workflows/{flow}/runs/{run['id']}"
    changed = await platform.acme.ask("PATCH", f"{path}/retention", {"retention": after})
    late = before == 0 and after != 0
    assert changed.status_code == (409 if late else 200), changed.text
    shown = await platform.acme.ok("GET", path)
    assert is_erased(shown) == (late or after == 0)
    if not late:
        (row,) = await platform.rows("SELECT ended_at, retention_due_at FROM runs")
        assert row.retention_due_at == (None if after == -1 else row.ended_at + after * 1000)


async def test_children_are_as_strict_as_their_parents(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "return 1"), retention=500)
    outer = await platform.acme.make(child("o", inner))
    run = await platform.acme.run(outer, retention=300)
    (row,) = await platform.rows("SELECT id, retention FROM runs WHERE depth = 1")
    assert json.decode(row.retention) == {"max_age_in_seconds": 300}
    path = f"/workflows/{outer}/runs/{run['id']}"
    await platform.acme.ok("PATCH", f"{path}/retention", {"retention": 900})
    (row,) = await platform.rows("SELECT id, retention FROM runs WHERE depth = 1")
    assert json.decode(row.retention) == {"max_age_in_seconds": 300}
    await platform.acme.ok("PATCH", f"{path}/retention", {"retention": 0})
    assert is_erased(await platform.acme.ok("GET", f"/workflows/{inner}/runs/{row.id}"))


@pytest.mark.parametrize("kept", [0, 900])
async def test_a_child_s_data_stays_for_who_recovers_its_parent(
    platform: Platform, kept: int
) -> None:
    inner = await platform.acme.make(code("z", "return 1"), retention=0)
    outer = await platform.acme.make(child("o", inner, "last"), code("last", "wait(g)"))
    run = await platform.acme.run(outer, background=True, retention=kept)
    await platform.reached("g")
    (below,) = await platform.rows("SELECT id FROM runs WHERE depth = 1")
    path = f"/workflows/{inner}/runs/{below.id}"
    assert await erase_due(platform.services) == 0
    assert (await platform.acme.ok("GET", path))["result"] == 1
    platform.gate("g").opened.set()
    await platform.idle()
    assert await erase_due(platform.services) == (1 if kept else 0)
    assert is_erased(await platform.acme.ok("GET", path))
    root = await platform.acme.ok("GET", f"/workflows/{outer}/runs/{run['id']}")
    assert is_erased(root) == (kept == 0)


async def test_what_waits_for_its_root_is_not_looked_at(
    tmp_path: Path, database_url: str | None
) -> None:
    query = "SELECT ended_at, retention_due_at FROM runs WHERE depth = 1 ORDER BY id"
    async with open_platform(tmp_path, database_url=database_url) as platform:
        strict = await platform.acme.make(code("z", "return 1"), retention=0)
        lax = await platform.acme.make(code("z", "return 1"), retention=3 * DAY // 1000)
        outer = await platform.acme.make(
            child("a", strict, "b"), child("b", lax, "last"), code("last", "wait(g)")
        )
        run = await platform.acme.run(outer, background=True)
        await platform.reached("g")
        first, second = await platform.rows(query)
        assert first.retention_due_at == first.ended_at + DAY
        assert second.retention_due_at == second.ended_at + 3 * DAY
        path = f"/workflows/{outer}/runs/{run['id']}/retention"
        await platform.acme.ok("PATCH", path, {"retention": 900})
        first, second = await platform.rows(query)
        assert first.retention_due_at == first.ended_at + DAY
        assert second.retention_due_at == second.ended_at + DAY
        callers = (platform.acme, platform.globex)
    # Whoever goes on with the root lets them go, too.
    async with open_platform(tmp_path, callers, database_url=database_url) as platform:
        await platform.reached("g")
        platform.gate("g").opened.set()
        await platform.idle()
        first, second = await platform.rows(query)
        assert first.retention_due_at == first.ended_at
        assert second.retention_due_at == second.ended_at + 900_000


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_child_that_is_erased_stays_until_its_root_has_ended(
    platform: Platform, deleted: bool
) -> None:
    inner = await platform.acme.make(code("z", "return 1"))
    outer = await platform.acme.make(child("o", inner, "last"), code("last", "wait(g)"))
    run = await platform.acme.run(outer, background=True)
    await platform.reached("g")
    (below,) = await platform.rows("SELECT id FROM runs WHERE depth = 1")
    path = f"/workflows/{inner}/runs/{below.id}"
    root = f"/workflows/{outer}/runs/{run['id']}"
    if deleted:
        assert await platform.acme.ok("DELETE", path) is None
        # Whatever its root is to be, that stays so.
        await platform.acme.ok("PATCH", f"{root}/retention", {"retention": 900})
    else:
        await platform.acme.ok("PATCH", f"{path}/retention", {"retention": 0})
    assert await erase_due(platform.services) == 0
    assert (await platform.acme.ok("GET", path))["result"] == 1
    platform.gate("g").opened.set()
    await platform.idle()
    assert await erase_due(platform.services) == 1
    assert is_erased(await platform.acme.ok("GET", path))
    assert not is_erased(await platform.acme.ok("GET", root))


async def test_a_run_is_deleted_with_what_is_below_it(platform: Platform) -> None:
    inner = await platform.acme.make(code("z", "wait(g)"))
    outer = await platform.acme.make(child("o", inner))
    run = await platform.acme.run(outer, background=True)
    await platform.reached("g")
    path = f"/workflows/{outer}/runs/{run['id']}"
    assert (await platform.acme.ask("DELETE", path)).status_code == 409
    platform.gate("g").opened.set()
    await platform.idle()
    assert await platform.acme.ok("DELETE", path) is None
    assert await platform.acme.ok("DELETE", path) is None
    assert is_erased(await platform.acme.ok("GET", path))
    assert await platform.rows("SELECT run_id FROM run_data") == []
    assert (await platform.globex.ask("DELETE", path)).status_code == 404


async def test_rows_go_and_their_totals_stay(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    old, young, kept = [await platform.acme.run(flow, retention=0) for _ in range(3)]
    early = "run_1111" + old["id"][8:]
    await platform.change(
        "UPDATE runs SET id = :early, created_at = :at, credits = 1.5 WHERE id = :id",
        early=early,
        at=10 * DAY,
        id=old["id"],
    )
    await platform.change(
        "UPDATE runs SET id = :early, erased_at = NULL WHERE id = :id",
        early="run_1112" + kept["id"][8:],
        id=kept["id"],
    )
    await remove_old_rows(platform.services)
    left = {row.id for row in await platform.rows("SELECT id FROM runs")}
    assert left == {young["id"], "run_1112" + kept["id"][8:]}
    assert await platform.rows("SELECT day, status, runs, credits FROM daily_totals") == [
        (10, "COMPLETED", 1, 1.5)
    ]
    answer = await platform.acme.ask("GET", f"/workflows/{flow}/runs")
    assert answer.headers["pagination-count"] == "2"


async def test_old_rows_that_are_kept_are_not_looked_at_again_before_the_next_day(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "_LOOKED_AT_ONCE", 2)
    flow = await platform.acme.make(code("a", "return 1"))
    ids = [(await platform.acme.run(flow))["id"] for _ in range(5)]
    for number, run_id in enumerate(ids):
        await platform.change(
            "UPDATE runs SET id = :early, created_at = 1 WHERE id = :id",
            early=f"run_111{number}" + run_id[8:],
            id=run_id,
        )
    written = Mock(wraps=platform.services.database.write)
    place = OldRows()
    with monkeypatch.context() as watched:
        watched.setattr(platform.services.database, "write", written)
        await remove_old_rows(platform.services, place)
        assert not [each for each in written.call_args_list if "remove_rows" in repr(each)]
    assert place.after.startswith("run_1113")
    await platform.change("UPDATE runs SET erased_at = 1")

    async def left() -> list[str]:
        return [row.id[:8] for row in await platform.rows("SELECT id FROM runs ORDER BY id")]

    await remove_old_rows(platform.services, place)
    assert await left() == ["run_1110", "run_1111", "run_1112", "run_1113"]
    place.begun = 0
    await remove_old_rows(platform.services, place)
    assert await left() == []


def test_the_stricter_of_two() -> None:
    def of(**rule: object) -> bytes:
        return json.encode(rule)

    forever, hour = of(max_age_in_seconds=-1), of(max_age_in_seconds=3600)
    assert stricter(None, None, 5) is None
    assert stricter(forever, hour, 5) == stricter(hour, forever, 5) == hour
    assert stricter(None, hour, 5) == of(max_age_in_seconds=5)
    assert stricter(forever, forever, 5) == forever
    both = of(max_age_in_seconds=3600, preserve_on_failure=True)
    assert json.decode(stricter(both, both, 5) or b"") == json.decode(both)
    assert stricter(both, hour, 5) == hour


async def test_erasing_goes_on_while_runs_are_live(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    runs = [await platform.acme.run(flow, background=True) for _ in range(3)]
    await platform.change("UPDATE runs SET retention_due_at = 1")
    await platform.reached("g")
    assert await erase_due(platform.services) == 0
    platform.gate("g").opened.set()
    await platform.idle()
    await asyncio.gather(
        *(platform.acme.ok("GET", f"/workflows/{flow}/runs/{run['id']}") for run in runs)
    )
