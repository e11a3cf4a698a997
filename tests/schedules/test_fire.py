"""Ticks become runs: one each, whoever looks, whatever is missed, and none is lost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.contract import validate
from tests.listening import listening
from tests.runs.platform import Caller, Platform, code, open_platform
from tests.schedules import stage
from tests.schedules.stage import HOUR, MINUTE, Clock, ended, runs_of, trigger, until

from insula.errors import Unavailable
from insula.runs import creation
from insula.schedules.timekeeper import LOOK_SECONDS, OF_ONE_APP, Timekeeper

DATABASES = ("sqlite", "postgres")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def look(platform: Platform) -> float:
    return await stage.look(platform.services)


WITH_FILE = {"type": "input", "key": "i", "input": {"doc": {"type": "file"}}, "destinations": ["a"]}


async def with_file(caller: Caller, port: int) -> Any:
    """Make a schedule whose runs take a file from this port."""
    flow = await caller.make(WITH_FILE, code("a", "return 1"))
    body = {"workflow_id": flow, "every": 3600, "input": {"doc": f"http://127.0.0.1:{port}/x"}}
    return await caller.ok("POST", "/schedules", body)


async def hourly(platform: Platform, **more: Any) -> Any:
    flow = await platform.acme.make(code("a", "return input.n"))
    body = {"workflow_id": flow, "every": 3600, "input": {"n": 7}, **more}
    return await platform.acme.ok("POST", "/schedules", body)


async def test_a_tick_starts_a_run(platform: Platform, clock: Clock) -> None:
    made = await hourly(platform)
    assert await look(platform) == LOOK_SECONDS
    assert await runs_of(platform) == []
    clock.step(HOUR + 5)
    await look(platform)
    await look(platform)
    (run,) = await ended(platform, platform.acme, 1)
    validate(run, "RunSchema")
    assert (run["origin"], run["status"], run["result"]) == ("TRIGGER", "COMPLETED", 7)
    assert run["identifier"] == made["id"]
    assert run["trigger"]["scheduled_at"] == made["next_at"]
    assert (run["trigger"]["missed"], run["trigger"]["timezone"]) == (0, "UTC")
    shown = await platform.acme.ok("GET", f"/schedules/{made['id']}")
    assert (shown["last_run_id"], shown["runs_count"]) == (run["id"], 1)
    assert shown["last_at"] == made["next_at"]
    assert shown["next_at"] > made["next_at"]


async def test_it_waits_no_longer_than_needed(platform: Platform, clock: Clock) -> None:
    await hourly(platform)
    assert await look(platform) == LOOK_SECONDS
    await hourly(platform, every=20)
    assert 0 < await look(platform) <= 20
    await platform.change("UPDATE schedules SET next_at = 1 WHERE every = 20")
    assert 0 < await look(platform) <= 20
    assert len(await runs_of(platform)) == 1


async def test_a_change_wakes_it(platform: Platform, clock: Clock) -> None:
    made = await hourly(platform)
    clock.step(HOUR)
    path = f"/schedules/{made['id']}"
    await platform.acme.ok("PATCH", path, {"missed": "all"})  # and nobody looks but the server
    await ended(platform, platform.acme, 1)


@pytest.mark.parametrize(
    ("policy", "number", "missed"), [("skip", 0, []), ("once", 1, [4]), ("all", 5, [0] * 5)]
)
async def test_what_was_missed(
    platform: Platform, clock: Clock, policy: str, number: int, missed: list[int]
) -> None:
    made = await hourly(platform, missed=policy)
    clock.step(5 * HOUR + 10 * MINUTE)
    await look(platform)
    runs = await ended(platform, platform.acme, number)
    assert [run["trigger"]["missed"] for run in runs] == missed
    assert len({run["trigger"]["scheduled_at"] for run in runs}) == number
    shown = await platform.acme.ok("GET", f"/schedules/{made['id']}")
    assert shown["enabled"]
    assert (shown["last_error"] is None) == (policy != "skip")


async def test_a_clock_that_goes_back_fires_nothing_again(platform: Platform, clock: Clock) -> None:
    made = await hourly(platform)
    path = f"/schedules/{made['id']}"
    clock.step(HOUR + 10)
    await look(platform)
    after = (await platform.acme.ok("GET", path))["next_at"]
    clock.step(-2 * HOUR)
    await look(platform)
    for enabled in (False, True):  # it would count from the earlier time now
        await platform.acme.ok("PATCH", path, {"enabled": enabled})
    assert (await platform.acme.ok("GET", path))["next_at"] == after
    clock.step(HOUR + 20)
    await look(platform)
    await ended(platform, platform.acme, 1)


async def test_a_single_time_is_over_afterwards(platform: Platform, clock: Clock) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    body = {"workflow_id": flow, "at": "2099-07-01T12:00", "timezone": "Europe/Berlin"}
    made = await platform.acme.ok("POST", "/schedules", body)
    assert made["next_at"] == made["at"] == "2099-07-01T10:00:00.000Z"
    await platform.change("UPDATE schedules SET at = :now, next_at = :now", now=clock.now)
    await look(platform)
    await ended(platform, platform.acme, 1)
    shown = await platform.acme.ok("GET", f"/schedules/{made['id']}")
    assert (shown["enabled"], shown["next_at"], shown["last_error"]) == (False, None, None)


async def test_two_who_look_at_once_start_one_run_a_tick(platform: Platform, clock: Clock) -> None:
    for _ in range(20):
        await hourly(platform, missed="all")
    clock.step(3 * HOUR + 10)
    await asyncio.gather(*(look(platform) for _ in range(4)))
    runs = await ended(platform, platform.acme, 60)
    ticks = {(run["identifier"], run["trigger"]["scheduled_at"]) for run in runs}
    assert len(ticks) == 60
    rows = await platform.rows("SELECT runs FROM schedules")
    assert [row.runs for row in rows] == [3] * 20


async def test_a_tick_that_could_not_be_stored_is_still_due(
    platform: Platform, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await hourly(platform)
    clock.step(HOUR + 10)

    def fail(connection: Any, rows: Any) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(creation.repository, "create_many", fail)
        assert 0 < await look(platform) <= 1.0
        assert await runs_of(platform) == []
        shown = await platform.acme.ok("GET", f"/schedules/{made['id']}")
        assert (shown["next_at"], shown["runs_count"]) == (made["next_at"], 0)
    await look(platform)  # the server's own timekeeper may have come first
    await ended(platform, platform.acme, 1)


async def test_a_process_that_dies_with_the_commit_loses_nothing(
    tmp_path: Path, database_url: str | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stored and nobody has heard of it: the next start finds it, once."""
    async with open_platform(tmp_path, database_url=database_url) as platform:
        await hourly(platform)
        # Whoever hears of it, by the queue or by a hint, and whichever timekeeper fires it.
        monkeypatch.setattr("insula.runs.dispatch.begin", _nothing)
        clock.step(HOUR + 10)
        await look(platform)
        (row,) = await runs_of(platform)
        assert (row.status, row.owner) == ("PENDING", None)
        callers = (platform.acme, platform.globex)
    monkeypatch.undo()
    async with open_platform(tmp_path, callers, database_url=database_url) as platform:
        (run,) = await ended(platform, platform.acme, 1)
        assert run["id"] == row.id


async def _nothing(services: object, run_id: str) -> None:
    """Begin nothing."""


async def test_full_queues_keep_it_due(
    tmp_path: Path, database_url: str | None, clock: Clock
) -> None:
    given = {"runs_max": 1, "queue_max": 1, "database_url": database_url}
    async with open_platform(tmp_path, **given) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        for _ in range(2):
            await platform.acme.run(flow, background=True)
        await platform.reached("g")
        made = await hourly(platform)
        clock.step(HOUR + 10)
        assert 0 < await look(platform) <= 1.0
        shown = await platform.acme.ok("GET", f"/schedules/{made['id']}")
        assert shown["next_at"] == made["next_at"]
        platform.gate("g").opened.set()
        await platform.idle()
        await ended(platform, platform.acme, 2)
        await look(platform)
        await ended(platform, platform.acme, 3)


async def test_a_workflow_that_cannot_run_costs_the_tick_its_run(
    platform: Platform, clock: Clock
) -> None:
    made = await hourly(platform)
    path = f"/schedules/{made['id']}"
    await platform.acme.ok("PATCH", f"/workflows/{made['workflow_id']}", {"enabled": False})
    clock.step(HOUR + 10)
    await look(platform)
    shown = await platform.acme.ok("GET", path)
    assert "disabled" in shown["last_error"]
    assert (shown["enabled"], shown["runs_count"]) == (True, 0)
    assert shown["next_at"] > made["next_at"]
    await platform.acme.ok("PATCH", f"/workflows/{made['workflow_id']}", {"enabled": True})
    clock.step(HOUR)
    await look(platform)
    await ended(platform, platform.acme, 1)
    assert (await platform.acme.ok("GET", path))["last_error"] is None


async def test_what_another_node_has_changed_a_moment_ago_costs_no_tick(
    platform: Platform, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message about it was lost, and what is kept here is believed for a while."""
    monkeypatch.setattr(platform.services.resolver, "fresh_for", 3600.0)
    flow = await platform.acme.publish(code("a", "return 1"))
    await platform.globex.ok("POST", "/schedules", {"workflow_id": flow, "every": 3600})
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    known = await platform.services.resolver.facts(flow)
    assert known is not None
    assert not known.discoverable
    await platform.change("UPDATE workflows SET discoverable = true")
    clock.step(HOUR + 10)
    await look(platform)
    await ended(platform, platform.globex, 1)


async def test_what_breaks_is_tried_less_and_less_often(
    platform: Platform, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*given: Any) -> None:
        raise RuntimeError("broken")

    await hourly(platform)
    now = 0.0
    keeper = Timekeeper(platform.services, clock=lambda: now)
    with monkeypatch.context() as patch:
        patch.setattr("insula.schedules.timekeeper.fire", fail)
        clock.step(HOUR + 10)
        for seconds in (1, 2, 4, 8, 16, 30, 30):
            assert 0 < await stage.look(platform.services, keeper) <= seconds
            ((_, hold),) = keeper._held.items()
            assert (hold.seconds, hold.until) == (seconds, now + seconds)
            now = hold.until
    await stage.look(platform.services, keeper)
    await ended(platform, platform.acme, 1)


async def test_a_slow_file_holds_up_its_own_schedule_alone(
    tmp_path: Path, database_url: str | None, clock: Clock
) -> None:
    """Neither another app's, nor another one of the same app."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answered.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    given = {"egress_allow": ("127.0.0.1",), "database_url": database_url}
    async with listening(answer) as port, open_platform(tmp_path, **given) as platform:
        slow = await with_file(platform.acme, port)
        clock.step(HOUR + 10)
        await platform.acme.ok("PATCH", f"/schedules/{slow['id']}", {"missed": "all"})
        await asked.wait()
        quick = await hourly(platform)
        flow = await platform.globex.make(code("a", "return 1"))
        body = {"workflow_id": flow, "every": 3600, "missed": "skip"}
        await platform.globex.ok("POST", "/schedules", body)
        clock.step(HOUR)
        await platform.acme.ok("PATCH", f"/schedules/{quick['id']}", {"missed": "all"})
        await ended(platform, platform.globex, 1)
        await ended(platform, platform.acme, 1)
        answered.set()
        runs = await ended(platform, platform.acme, 3)  # its next tick came due meanwhile
        told = sorted(run["identifier"] for run in runs)
        assert told == sorted([quick["id"], slow["id"], slow["id"]])


async def test_an_app_has_a_share_of_what_is_fired_at_once(
    tmp_path: Path, database_url: str | None, clock: Clock
) -> None:
    asked: list[asyncio.Event] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(asyncio.Event())
        await asked[-1].wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async def so_many(number: int) -> None:
        async def there() -> bool:
            return len(asked) >= number

        await until(there)

    given = {"egress_allow": ("127.0.0.1",), "database_url": database_url}
    async with listening(answer) as port, open_platform(tmp_path, **given) as platform:
        for _ in range(OF_ONE_APP + 1):
            slow = await with_file(platform.acme, port)
        await with_file(platform.globex, port)
        clock.step(HOUR + 10)
        await platform.acme.ok("PATCH", f"/schedules/{slow['id']}", {"missed": "all"})
        await so_many(OF_ONE_APP + 1)
        rows = await platform.rows("SELECT 1 FROM runs")
        assert (len(asked), rows) == (OF_ONE_APP + 1, [])  # one of them is the other app's
        asked[0].set()
        await so_many(OF_ONE_APP + 2)
        for one in asked:
            one.set()
        await ended(platform, platform.acme, OF_ONE_APP + 1)
        await ended(platform, platform.globex, 1)


async def test_a_file_that_is_too_large_costs_the_tick_its_run(
    tmp_path: Path, database_url: str | None, clock: Clock
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    given = {"egress_allow": ("127.0.0.1",), "file_max": 4, "database_url": database_url}
    async with listening(answer) as port, open_platform(tmp_path, **given) as platform:
        made = await with_file(platform.acme, port)
        clock.step(HOUR + 10)
        await look(platform)
        shown = await platform.acme.ok("GET", f"/schedules/{made['id']}")
        assert "INSULA_FILE_MAX" in shown["last_error"]
        assert (shown["enabled"], shown["runs_count"]) == (True, 0)
        assert shown["last_at"] == made["next_at"] < shown["next_at"]


async def test_another_app_s_workflow_while_it_is_published(
    platform: Platform, clock: Clock
) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    body = {"workflow_id": flow, "every": 3600}
    made = await platform.globex.ok("POST", "/schedules", body)
    clock.step(HOUR + 10)
    await look(platform)
    (run,) = await ended(platform, platform.globex, 1)
    assert (run["app_id"], run["workflow_app_id"]) == (platform.globex.id, platform.acme.id)
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    clock.step(HOUR)
    await look(platform)
    shown = await platform.globex.ok("GET", f"/schedules/{made['id']}")
    assert (shown["enabled"], shown["next_at"], shown["runs_count"]) == (False, None, 1)
    assert shown["last_error"]


async def test_deleting_the_workflow_or_the_app_deletes_them(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"), trigger("t", "3600"))
    body = {"workflow_id": flow, "every": 3600}
    await platform.acme.ok("POST", "/schedules", body)
    await platform.globex.ok("POST", "/schedules", body)
    other = await hourly(platform)
    await platform.acme.ok("DELETE", f"/workflows/{flow}")
    assert [row.id for row in await platform.rows("SELECT id FROM schedules")] == [other["id"]]
    headers = {"authorization": "Bearer insadm_" + "x" * 40}
    answer = await platform.client.delete(f"/apps/{platform.acme.id}", headers=headers)
    assert answer.status_code == 200
    assert await platform.rows("SELECT id FROM schedules") == []
