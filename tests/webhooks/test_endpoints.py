"""Webhooks from their making to what arrives, over each of the databases."""

import asyncio
import json
from typing import Any

import pytest
from tests.contract import ContractFile, validate
from tests.runs.platform import ADMIN, Caller, Platform, code

from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest, HttpResponse
from insula.kit.clock import now_ms
from insula.webhooks.signature import EARLIER_MS, sign

URL = "https://hooks.test/in"
RUNS = ["run.completed", "run.failed", "run.cancelled"]


class Receiver:
    """An HTTP client whose far end is an address that is told of things."""

    def __init__(self, *answers: int | str) -> None:
        self.requests: list[HttpRequest] = []
        self.answers = list(answers)
        self.changed = asyncio.Event()

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        self.requests.append(request)
        self.changed.set()
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, str):
            raise StepFailure(answer, "refused")
        return HttpResponse(answer, (), b"", request.url)

    async def heard(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many requests; return what they told."""
        async with asyncio.timeout(10):
            while len(self.requests) < count:
                self.changed.clear()
                await self.changed.wait()
        return [json.loads(request.body or b"") for request in self.requests]


@pytest.fixture
def receiver(platform: Platform) -> Receiver:
    made = Receiver()
    platform.services.http = made
    return made


async def hook(caller: Caller, **more: Any) -> Any:
    """Make a webhook for the ends of runs."""
    body = {"url": URL, "events": [], "run_events": RUNS, **more}
    return await caller.ok("POST", "/webhooks", body)


async def settled(caller: Caller, webhook_id: str, count: int = 1) -> list[Any]:
    """Wait until so many deliveries were attempted and are stored so."""
    async with asyncio.timeout(10):
        while True:
            found: list[Any] = await caller.ok("GET", f"/webhooks/{webhook_id}/deliveries")
            if sum(bool(one["attempts"]) for one in found) >= count:
                return found
            await asyncio.sleep(0.005)


async def arrived(caller: Caller, webhook_id: str) -> Any:
    """Wait until the one delivery has arrived."""
    async with asyncio.timeout(10):
        while True:
            (delivery,) = await settled(caller, webhook_id)
            if delivery["status"] == "DELIVERED":
                return delivery
            await asyncio.sleep(0.005)


async def test_a_webhook_is_made_read_changed_and_removed(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/webhooks", {"url": URL, "events": ["record.failed"]})
    assert made["id"].startswith("hook_")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    path = f"/webhooks/{made['id']}"
    assert await acme.ok("GET", path) == made
    assert await acme.ok("GET", "/webhooks") == [made]
    changed = await acme.ok("PATCH", path, {"url": URL + "2", "run_events": ["run.failed"]})
    assert changed["url"] == URL + "2"
    assert (changed["events"], changed["run_events"]) == (["record.failed"], ["run.failed"])
    renewed = await acme.ok("POST", f"{path}/rotate")
    assert renewed["secret"] != secret
    assert secret not in json.dumps(await platform.rows("SELECT * FROM webhooks"), default=str)
    if ContractFile.present:
        validate(made, "WebhookSchema")
    assert await acme.ok("DELETE", path) is None
    assert (await acme.ask("GET", path)).status_code == 404
    assert (await acme.ask("DELETE", path)).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"events": ["record.failed"]}, "url"),
        ({"url": URL}, "events"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["record.other"]}, "events"),
        ({"url": URL, "events": [], "run_events": ["run.begun"]}, "run_events"),
        ({"url": "ftp://hooks.test/", "events": ["record.failed"]}, "url"),
        ({"url": "https://", "events": ["record.failed"]}, "url"),
        ({"url": "https://a b/", "events": ["record.failed"]}, "url"),
        ({"url": "https://a/\r\nx: y", "events": ["record.failed"]}, "url"),
    ],
)
async def test_what_cannot_be_a_webhook_is_refused(
    platform: Platform, body: dict[str, Any], field: str
) -> None:
    answer = await platform.acme.ask("POST", "/webhooks", body)
    assert answer.status_code == 400
    assert {error["path"][0] for error in answer.json()["errors"]} == {field}


async def test_the_same_key_makes_one_webhook(platform: Platform) -> None:
    headers = {"idempotency-key": "one"}
    body = {"url": URL, "events": ["record.failed"]}
    first = await platform.acme.ok("POST", "/webhooks", body, headers=headers)
    assert await platform.acme.ok("POST", "/webhooks", body, headers=headers) == first


async def test_the_same_key_tells_once(platform: Platform, receiver: Receiver) -> None:
    acme = platform.acme
    path = f"/webhooks/{(await hook(acme))['id']}"
    headers = {"idempotency-key": "one"}
    told = [await acme.ok("POST", f"{path}/test", headers=dict(headers)) for _ in range(2)]
    assert told[0]["id"] == told[1]["id"]
    assert len(await acme.ok("GET", f"{path}/deliveries")) == 1
    again = f"{path}/deliveries/{told[0]['id']}/redeliver"
    assert (await acme.ok("POST", again, headers=dict(headers)))["id"] == told[0]["id"]
    await receiver.heard(2)
    repeated = await acme.ok("POST", again, headers=dict(headers))
    assert repeated["status"] != "PENDING" or repeated["attempts"] != []
    assert len(receiver.requests) == 2


async def test_the_end_of_a_run_is_told_signed_and_logged(
    platform: Platform, receiver: Receiver
) -> None:
    acme = platform.acme
    made = await hook(acme)
    workflow = await acme.make(code("a", 'return {"n": 7}'))
    run = await acme.run(workflow, identifier="mine")
    (told,) = await receiver.heard(1)
    assert told["event"] == "run.completed"
    assert told["data"]["id"] == run["id"]
    assert (told["data"]["result"], told["data"]["identifier"]) == ({"n": 7}, "mine")
    (request,) = receiver.requests
    sent = dict(request.headers)
    assert sent["webhook-id"] == told["id"]
    at = int(sent["webhook-timestamp"])
    assert sent["webhook-signature"] == sign(made["secret"], told["id"], at, request.body or b"")
    (delivery,) = await settled(acme, made["id"])
    assert (delivery["id"], delivery["status"]) == (told["id"], "DELIVERED")
    assert delivery["attempts"][0]["status"] == 200
    whole = await acme.ok("GET", f"/webhooks/{made['id']}/deliveries/{told['id']}")
    assert whole["body"] == told


async def test_a_secret_that_was_replaced_signs_for_another_day(
    platform: Platform, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    made = await hook(acme)
    path = f"/webhooks/{made['id']}"
    first = made["secret"]
    second = (await acme.ok("POST", f"{path}/rotate"))["secret"]

    async def signed() -> tuple[str, list[str]]:
        """Return the signatures of another delivery, and those that each secret makes."""
        await acme.ok("POST", f"{path}/test")
        request = receiver.requests[-1]
        sent = dict(request.headers)
        at, body = int(sent["webhook-timestamp"]), request.body or b""
        makes = [sign(secret, sent["webhook-id"], at, body) for secret in (second, first)]
        return sent["webhook-signature"], makes

    found, makes = await signed()
    assert found == " ".join(makes)
    # Encrypting all anew keeps both.
    headers = {"authorization": f"Bearer {ADMIN}"}
    assert (await acme.client.post("/secrets/rotate", headers=headers)).status_code == 200
    found, makes = await signed()
    assert found == " ".join(makes)
    monkeypatch.setattr("insula.webhooks.deliver.now_ms", lambda: now_ms() + EARLIER_MS)
    found, makes = await signed()
    assert found == makes[0]
    stored = json.dumps(await platform.rows("SELECT * FROM webhooks"), default=str)
    assert first not in stored
    assert second not in stored


async def test_only_what_was_asked_for_is_told(platform: Platform, receiver: Receiver) -> None:
    acme = platform.acme
    await hook(acme, run_events=["run.failed"])
    await hook(platform.globex)
    good = await acme.make(code("a", "return 1"))
    bad = await acme.make(code("a", "return fail(no)"))
    await acme.run(good)
    run = await acme.run(bad)
    (told,) = await receiver.heard(1)
    assert (told["event"], told["data"]["id"]) == ("run.failed", run["id"])
    assert told["data"]["error"]
    rows = await platform.rows("SELECT count(*) FROM deliveries")
    assert rows[0][0] == 1


async def test_an_app_without_webhooks_stores_nothing_more(platform: Platform) -> None:
    await hook(platform.globex)
    workflow = await platform.acme.make(code("a", "return 1"))
    units = len(platform.services.at_end)
    assert units
    await platform.acme.run(workflow)
    assert await platform.rows("SELECT * FROM deliveries") == []


async def test_a_caller_hears_no_more_of_a_closed_workflow_than_it_may_see(
    platform: Platform, receiver: Receiver
) -> None:
    workflow = await platform.acme.publish(
        code("hidden", "return fail(no)", "last"), code("last", "return 2"), open=False
    )
    await hook(platform.globex)
    await platform.globex.discover(workflow)
    (told,) = await receiver.heard(1)
    assert told["data"]["error"] == "A step failed"
    assert told["data"]["usage"]["steps"] == {}


async def test_what_does_not_arrive_is_tried_again(platform: Platform, receiver: Receiver) -> None:
    acme = platform.acme
    receiver.answers = ["nobody listens", 500, 200]
    made = await hook(acme)
    await acme.run(await acme.make(code("a", "return 1")))
    for count in (1, 2):
        (delivery,) = await settled(acme, made["id"])
        while len(delivery["attempts"]) < count:
            (delivery,) = await settled(acme, made["id"])
        assert delivery["status"] == "PENDING"
        assert "next_at" in delivery
        await platform.change("UPDATE deliveries SET next_at = 1")
    told = await receiver.heard(3)
    assert told[0] == told[1] == told[2]
    delivery = await arrived(acme, made["id"])
    assert [one.get("error") for one in delivery["attempts"]] == [
        "nobody listens",
        "it answered 500",
        None,
    ]
    assert (await platform.rows("SELECT failing_since FROM webhooks"))[0][0] is None


async def test_a_redirect_is_no_delivery(platform: Platform, receiver: Receiver) -> None:
    made = await hook(platform.acme)
    receiver.answers = [307]
    told = await platform.acme.ok("POST", f"/webhooks/{made['id']}/test")
    assert told["event"] == "webhook.test"
    assert told["status"] == "PENDING"
    assert "redirects" in told["attempts"][0]["error"]
    assert not receiver.requests[0].redirects


async def test_an_address_that_is_gone_is_switched_off_and_may_be_switched_on(
    platform: Platform, receiver: Receiver
) -> None:
    acme = platform.acme
    made = await hook(acme)
    receiver.answers = [410]
    path = f"/webhooks/{made['id']}"
    told = await acme.ok("POST", f"{path}/test")
    assert told["status"] == "FAILED"
    off = await acme.ok("GET", path)
    assert off["enabled"] is False
    assert "gone" in off["disabled_reason"]
    on = await acme.ok("PATCH", path, {"enabled": True})
    assert "disabled_reason" not in on
    again = await acme.ok("POST", f"{path}/deliveries/{told['id']}/redeliver")
    assert again["status"] == "PENDING"
    assert (await receiver.heard(2))[1] == told["body"]


async def test_an_address_where_nothing_arrives_for_a_day_is_switched_off(
    platform: Platform, receiver: Receiver
) -> None:
    acme = platform.acme
    made = await hook(acme)
    receiver.answers = [500, 500]
    workflow = await acme.make(code("a", "return 1"))
    await acme.run(workflow)
    await settled(acme, made["id"])
    await platform.change("UPDATE webhooks SET failing_since = failing_since - 86400000")
    await platform.change("UPDATE deliveries SET attempts = 8, next_at = 1")
    async with asyncio.timeout(10):
        while True:
            found = await acme.ok("GET", f"/webhooks/{made['id']}")
            if not found["enabled"]:
                break
            await asyncio.sleep(0.005)
    assert "500" in found["disabled_reason"]


async def test_bodies_go_with_what_they_tell_of(platform: Platform, receiver: Receiver) -> None:
    acme = platform.acme
    made = await hook(acme)
    workflow = await acme.make(code("a", 'return "private"'))
    kept = await acme.run(workflow)
    await receiver.heard(1)
    await settled(acme, made["id"])
    assert await acme.ok("DELETE", f"/workflows/{workflow}/runs/{kept['id']}") is None
    await acme.run(workflow, retention=0)
    told = await receiver.heard(2)
    assert told[1]["data"]["result"] == "private"
    found = await settled(acme, made["id"], 2)
    for one in found:
        path = f"/webhooks/{made['id']}/deliveries/{one['id']}"
        assert "body" not in await acme.ok("GET", path)
        assert (await acme.ask("POST", f"{path}/redeliver")).status_code == 409


async def test_deliveries_are_listed_in_pages(platform: Platform, receiver: Receiver) -> None:
    acme = platform.acme
    made = await hook(acme)
    path = f"/webhooks/{made['id']}"
    ids = [(await acme.ok("POST", f"{path}/test"))["id"] for _ in range(3)]
    first = await acme.ask("GET", f"{path}/deliveries?take=2&status=DELIVERED")
    assert [one["id"] for one in first.json()] == ids[:0:-1]
    assert first.headers["pagination-count"] == "3"
    following = first.headers["pagination-next"]
    rest = await acme.ok("GET", f"{path}/deliveries?take=2&next={following}&status=DELIVERED")
    assert [one["id"] for one in rest] == ids[:1]
    assert await acme.ok("GET", f"{path}/deliveries?status=FAILED") == []


async def test_removing_an_app_leaves_no_webhook(platform: Platform) -> None:
    await hook(platform.acme)
    headers = {"authorization": "Bearer insadm_" + "x" * 40}
    answer = await platform.client.delete(f"/apps/{platform.acme.id}", headers=headers)
    assert answer.status_code == 200
    assert await platform.rows("SELECT * FROM webhooks") == []


async def test_a_key_that_only_reads_is_not_shown_the_password(platform: Platform) -> None:
    acme = platform.acme
    url = "https://ada:s3cret@example.com:8443/ada:s3cret@hook?a=1"
    made = await acme.ok("POST", "/webhooks", {"url": url, "events": ["record.completed"]})
    assert made["url"] == url
    path = f"/webhooks/{made['id']}"
    key = (await acme.ok("POST", "/keys", {"name": "r", "read_only": True}))["key"]
    reads = Caller(acme.id, key, acme.client)
    hidden = "https://ada:***@example.com:8443/ada:s3cret@hook?a=1"
    assert (await reads.ok("GET", path))["url"] == hidden
    assert [each["url"] for each in await reads.ok("GET", "/webhooks")] == [hidden]
    assert (await acme.ok("GET", path))["url"] == url
    assert (await acme.ok("PATCH", path, {"url": hidden}))["url"] == url
    moved = "https://ada:***@example.net/"
    assert (await acme.ok("PATCH", path, {"url": moved}))["url"] == moved
    await acme.ok("PATCH", path, {"url": "https://token@example.com/"})
    assert (await reads.ok("GET", path))["url"] == "https://token@example.com/"
