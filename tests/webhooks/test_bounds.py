"""What is kept for one webhook has bounds, over each of the databases."""

import asyncio
from functools import partial

import pytest
from sqlalchemy import BigInteger, literal
from tests.runs.platform import Caller, Platform, code
from tests.webhooks.test_endpoints import Receiver, hook

from insula.adapters.keyring import KeyRing
from insula.kit.clock import DAY_MS, now_ms
from insula.kit.ids import first_id
from insula.webhooks import bounds, deliveries
from insula.webhooks.deliver import Deliverer
from insula.webhooks.telling import Teller


def deliverer(platform: Platform) -> Deliverer:
    """Another node's."""
    return Deliverer(platform.services, KeyRing([b"1" * 32]), Teller(lambda: None))


async def told(platform: Platform, count: int, first: int = 0, prefix: str = "msg_") -> None:
    """Let webhooks of an app be told of things, numbered; nothing is sent."""
    for number in range(first, first + count):
        enqueue = partial(
            deliveries.enqueue,
            app_id=platform.acme.id,
            event="run.completed",
            event_id=f"{prefix}{number:04}",
            body=b"{}",
            thing_id="run_1",
            now=now_ms() + DAY_MS,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deliveries, "at_once", lambda _, now: literal(now, BigInteger()))
            await platform.services.database.write(enqueue)


async def listed(caller: Caller, webhook_id: str) -> list[tuple[str, str]]:
    found = await caller.ok("GET", f"/webhooks/{webhook_id}/deliveries?take=100")
    return [(one["id"], one["status"]) for one in found]


async def test_an_address_that_falls_behind_too_far_is_switched_off(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "PENDING_MOST", 5)
    acme = platform.acme
    made, other = await hook(acme), await hook(platform.globex)
    await told(platform, 5)
    one, two = deliverer(platform), deliverer(platform)
    await one.bound()
    assert (await acme.ok("GET", f"/webhooks/{made['id']}"))["enabled"]
    await told(platform, 1, 5)
    await asyncio.gather(one.bound(), two.bound())
    off = await acme.ok("GET", f"/webhooks/{made['id']}")
    assert not off["enabled"]
    assert off["disabled_reason"].startswith("6 deliveries were pending, more than 5:")
    # Its log says so, once; nothing is pending any more, and nothing more comes.
    log = await acme.ok("GET", f"/webhooks/{made['id']}/deliveries?take=100")
    (entry,) = [each for each in log if each["event"] == "webhook.disabled"]
    assert entry["attempts"][0]["error"] == off["disabled_reason"]
    assert {each["status"] for each in log} == {"FAILED"}
    await acme.run(await acme.make(code("a", "return 1")))
    assert len(await listed(acme, made["id"])) == 7
    assert (await platform.globex.ok("GET", f"/webhooks/{other['id']}"))["enabled"]


async def test_one_that_was_switched_off_is_told_again_one_by_one(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "PENDING_MOST", 2)
    receiver = platform.services.http = Receiver()  # type: ignore[assignment]  # a fake
    acme = platform.acme
    made = await hook(acme)
    await told(platform, 3)
    await deliverer(platform).bound()
    path = f"/webhooks/{made['id']}"
    again = await acme.ok("POST", f"{path}/deliveries/msg_0001/redeliver")
    assert again["status"] == "PENDING"
    await receiver.heard(1)
    on = await acme.ok("PATCH", path, {"enabled": True})
    assert "disabled_reason" not in on
    await acme.run(await acme.make(code("a", "return 1")))
    await receiver.heard(2)


async def test_logs_keep_the_newest_and_what_is_pending(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LOGGED_MOST", 3)
    monkeypatch.setattr("insula.webhooks.deliver._SWEPT", 2)
    acme = platform.acme
    made = await hook(acme)
    await told(platform, 10)
    over = "UPDATE deliveries SET next_at = NULL, status = 'DELIVERED' WHERE id <> 'msg_0001'"
    await platform.change(over)
    await deliverer(platform).forget()
    # Ids this short are older than thirty days: what is pending stays whatever its age.
    assert await listed(acme, made["id"]) == [("msg_0001", "PENDING")]


async def test_logs_are_cut_where_they_are_too_long(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LOGGED_MOST", 3)
    monkeypatch.setattr("insula.webhooks.deliver._SWEPT", 2)
    acme, today = platform.acme, first_id("msg", now_ms())
    made = await hook(acme)
    await told(platform, 10, prefix=today)
    over = "UPDATE deliveries SET next_at = NULL, status = 'DELIVERED' WHERE id <> :id"
    await platform.change(over, id=f"{today}0001")
    await deliverer(platform).forget()
    kept = [f"{today}{number:04}" for number in (9, 8, 7, 1)]
    assert [one for one, _ in await listed(acme, made["id"])] == kept
