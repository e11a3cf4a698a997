"""Webhooks hear of records: signed, once, in order, and after a restart, too."""

import asyncio
from pathlib import Path
from typing import Any

from tests.runs.platform import Caller, Platform, open_platform
from tests.webhooks.test_endpoints import URL, Receiver, settled

from insula.kit.clock import now_ms
from insula.webhooks.signature import sign

from .stage import collection, rested, rule

EVENTS = ["record.created", "record.running", "record.completed", "record.failed"]


async def hook(caller: Caller, *events: str) -> Any:
    body = {"url": URL, "events": list(events or EVENTS), "run_events": []}
    return await caller.ok("POST", "/webhooks", body)


async def delivered(caller: Caller, webhook_id: str, count: int) -> list[Any]:
    """Wait until so many deliveries have arrived and are stored so; return all there are."""
    async with asyncio.timeout(10):
        while True:
            found: list[Any] = await caller.ok("GET", f"/webhooks/{webhook_id}/deliveries")
            if sum(one["status"] == "DELIVERED" for one in found) >= count:
                return found
            await asyncio.sleep(0.005)


def told_of(heard: list[dict[str, Any]]) -> dict[str, str]:
    """Return the status that each event told."""
    return {one["event"]: one["data"]["status"] for one in heard}


async def test_a_record_is_told_of_from_its_making_to_its_end(platform: Platform) -> None:
    receiver = platform.services.http = Receiver()
    acme = platform.acme
    made = await hook(acme)
    await hook(platform.globex)  # another app hears nothing
    path = await collection(acme, await rule(acme, "a"), await rule(acme, "b", "false"))
    body = {"name": "Case", "rules": {"a": {"text": "x"}, "b": {"text": "x"}}, "run": "all"}
    record = await acme.ok("POST", f"{path}/records", body)
    await rested(acme, f"{path}/records/{record['id']}")
    heard = await receiver.heard(3)
    assert told_of(heard) == {
        "record.created": "DRAFT",
        "record.running": "RUNNING",
        "record.completed": "COMPLETED",
    }
    last = next(one["data"] for one in heard if one["event"] == "record.completed")
    assert (last["id"], last["collection_id"]) == (record["id"], record["collection_id"])
    counts = [last[f"rules_{name}count"] for name in ("", "pass_", "fail_", "warn_")]
    assert counts == [2, 1, 1, 0]
    for request in receiver.requests:
        headers = {name.lower(): value for name, value in request.headers}
        signed = headers["webhook-signature"]
        stamp = int(headers["webhook-timestamp"])
        body_sent = request.body or b""
        assert signed == sign(made["secret"], headers["webhook-id"], stamp, body_sent)
    deliveries = await delivered(acme, made["id"], 3)
    assert len(deliveries) == len(receiver.requests) == 3
    await acme.ok("POST", f"{path}/records/{record['id']}/run", {"mode": "changed"})
    await rested(acme, f"{path}/records/{record['id']}")
    assert [one["event"] for one in await receiver.heard(4)][3:] == ["record.completed"]


async def test_a_failure_is_told_and_a_cancel_is_not(platform: Platform) -> None:
    receiver = platform.services.http = Receiver()
    acme = platform.acme
    made = await hook(acme, "record.failed", "record.completed")
    rules = [await rule(acme, "a", "fail(oh)"), await rule(acme, "b", "wait(b)")]
    path = await collection(acme, *rules)
    body = {"rules": {"a": {"text": "x"}, "b": {"text": "x"}}, "run": "all"}
    record = await acme.ok("POST", f"{path}/records", body)
    one = f"{path}/records/{record['id']}"
    await platform.reached("b")
    await acme.ok("POST", f"{one}/cancel")
    assert receiver.requests == []
    platform.gate("b").opened.set()
    await acme.ok("POST", f"{one}/run", {"mode": "all"})
    await rested(acme, one)
    (heard,) = await receiver.heard(1)
    assert told_of([heard]) == {"record.failed": "FAILED"}
    assert len(await delivered(acme, made["id"], 1)) == 1


async def test_what_was_not_told_is_told_after_a_restart(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    async with open_platform(tmp_path, **settings) as platform:
        platform.services.http = Receiver(*["nobody listens"] * 10)
        acme = platform.acme
        made = await hook(acme)
        path = await collection(acme, await rule(acme, "a", "wait(a)"))
        body = {"rules": {"a": {"text": "x"}}, "run": "all"}
        record = await acme.ok("POST", f"{path}/records", body)
        await platform.reached("a")
        await settled(acme, made["id"], 2)
    async with open_platform(tmp_path, (acme, platform.globex), **settings) as platform:
        receiver = platform.services.http = Receiver()
        acme = platform.acme
        await platform.reached("a")  # the rule goes on where it was
        platform.gate("a").opened.set()
        await rested(acme, f"{path}/records/{record['id']}")
        # What waits for its next attempt, and not what is being told: that is claimed for longer.
        soon = now_ms() + 30_000
        await platform.change("UPDATE deliveries SET next_at = 1 WHERE next_at < :soon", soon=soon)
        heard = await receiver.heard(3)
        assert told_of(heard) == {
            "record.created": "DRAFT",
            "record.running": "RUNNING",
            "record.completed": "COMPLETED",
        }
        assert len(await delivered(acme, made["id"], 3)) == 3
        assert len(receiver.requests) == 3
