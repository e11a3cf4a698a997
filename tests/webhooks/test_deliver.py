"""What is to be told outlives the process, and is told by one of several."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from tests.runs.platform import Platform, code, open_platform
from tests.webhooks.test_endpoints import Receiver, hook, settled

from insula.kit.clock import DAY_MS, now_ms
from insula.webhooks import deliver, deliveries, turns

DATABASES = ("sqlite", "postgres")


async def test_what_was_not_told_is_told_after_a_restart(
    tmp_path: Path, database_url: str | None
) -> None:
    async with open_platform(tmp_path, database_url=database_url) as platform:
        platform.services.http = Receiver("nobody listens")
        acme = platform.acme
        made = await hook(acme)
        await acme.run(await acme.make(code("a", "return 1")))
        (pending,) = await settled(acme, made["id"])
        assert pending["status"] == "PENDING"
    callers = (acme, platform.globex)
    async with open_platform(tmp_path, callers, database_url=database_url) as platform:
        receiver = platform.services.http = Receiver()
        await platform.change("UPDATE deliveries SET next_at = 1")
        (told,) = await receiver.heard(1)
        assert told["id"] == pending["id"]


async def test_one_of_several_claims_a_delivery(platform: Platform) -> None:
    database = platform.services.database
    platform.services.draining = True  # nobody else claims it
    await hook(platform.acme)
    made = await platform.acme.ok("GET", "/webhooks")
    now = now_ms()
    enqueue = partial(
        deliveries.enqueue,
        app_id=platform.acme.id,
        event="run.completed",
        event_id="msg_1",
        body=b"{}",
        thing_id="run_1",
        now=now,
    )
    await database.write(enqueue)
    due = partial(turns.due, now=now, busy=turns.Busy())
    (row,) = (await database.read(due)).rows
    assert row.webhook_id == made[0]["id"]
    claim = partial(deliveries.claim, row=row, until=now + 60_000)
    assert await database.write(claim)
    assert not await database.write(claim)
    assert (await database.read(due)).rows == []
    # Whoever claimed it has died: it is due again, as its second attempt.
    (again,) = (await database.read(partial(due, now=now + 60_000))).rows
    assert again.attempts == 1
    platform.services.draining = False


async def test_a_node_whose_clock_is_ahead_takes_nothing_that_another_has_claimed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, ahead = platform.services.database, now_ms() + DAY_MS
    platform.services.draining = True
    await hook(platform.acme)
    enqueue = partial(deliveries.enqueue, app_id=platform.acme.id, event="run.failed")
    # What such a node tells is due now, and not when its clock says.
    await database.write(
        partial(enqueue, event_id="msg_1", body=b"{}", thing_id="run_1", now=ahead)
    )
    (row,) = (await database.read(partial(deliver._due, busy=turns.Busy(), after=""))).rows
    assert await database.write(partial(deliver._claim, row=row)) is not None
    monkeypatch.setattr(deliver, "now_ms", lambda: ahead)
    assert await database.write(partial(deliver._claim, row=row)) is None
    assert (await database.read(partial(deliver._due, busy=turns.Busy(), after=""))).rows == []
    platform.services.draining = False


async def test_what_failed_is_tried_again_by_the_clock_that_all_have(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.services.http = Receiver(500)
    ahead = now_ms() + DAY_MS
    monkeypatch.setattr(deliver, "now_ms", lambda: ahead)
    made = await hook(platform.acme)
    await platform.acme.ok("POST", f"/webhooks/{made['id']}/test")
    await settled(platform.acme, made["id"])
    (row,) = await platform.rows("SELECT next_at FROM deliveries")
    assert row.next_at < ahead


@pytest.mark.parametrize("besides", [True, False])
async def test_an_address_with_no_room_holds_up_no_other(platform: Platform, besides: bool) -> None:
    database = platform.services.database
    platform.services.draining = True
    one, other = await hook(platform.acme), await hook(platform.acme)
    for webhook in (one, other):
        path = f"/webhooks/{webhook['id']}"
        assert (await platform.acme.ok("GET", path))["enabled"]
    now = now_ms()
    await database.write(
        partial(
            deliveries.enqueue,
            app_id=platform.acme.id,
            event="run.failed",
            event_id="msg_2",
            body=b"{}",
            thing_id="run_2",
            now=now,
        )
    )
    full = turns.Busy()
    for _ in range(turns.OF_ONE_WEBHOOK if besides else 0):
        full.change(platform.acme.id, one["id"], 1)
    found = (await database.read(partial(turns.due, now=now, busy=full))).rows
    wanted = {other["id"]} if besides else {one["id"], other["id"]}
    assert {row.webhook_id for row in found} == wanted
    platform.services.draining = False


async def test_apps_with_slow_addresses_leave_places_to_others(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of one app is due, and since when: another's is made, too."""
    database = platform.services.database
    platform.services.draining = True
    many = [await hook(platform.acme) for _ in range(6)]
    theirs = await hook(platform.globex)
    enqueue = partial(deliveries.enqueue, event="run.failed", body=b"{}", thing_id="run_2")
    for n in range(20):
        unit = partial(enqueue, app_id=platform.acme.id, event_id=f"msg_{n:02}", now=1)
        await database.write(unit)
    await database.write(
        partial(enqueue, app_id=platform.globex.id, event_id="msg_z", now=now_ms())
    )
    busy, now = turns.Busy(), now_ms()
    found = (await database.read(partial(turns.due, now=now, busy=busy))).rows
    assert Counter(row.app_id for row in found) == {
        platform.acme.id: turns.OF_ONE_APP,
        platform.globex.id: 1,
    }
    monkeypatch.setattr(turns, "AT_ONCE", 5)
    for webhook in many[:4]:
        busy.change(platform.acme.id, webhook["id"], 1)
    (last,) = (await database.read(partial(turns.due, now=now, busy=busy))).rows
    assert last.webhook_id == theirs["id"]  # one place is left, and acme has the others
    # A look that comes to some webhooks alone goes on with the others.
    monkeypatch.setattr(turns, "LOOKED_AT", 2)
    seen, after = set[str](), ""
    for _ in range(4):
        rows, after = await database.read(
            partial(turns.due, now=now, busy=turns.Busy(), after=after)
        )
        seen |= {row.webhook_id for row in rows}
    assert seen == {theirs["id"], *(webhook["id"] for webhook in many)}
    platform.services.draining = False
