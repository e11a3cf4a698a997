"""Runs that the outside starts, over each of the databases."""

import json
from typing import Any

import httpx
from tests.runs.platform import Caller, Platform, code

FIELDS = {
    "n": {"type": "number", "optional": True},
    "tags": {"type": "string", "array": True, "optional": True},
    "doc": {"type": "file", "optional": True},
}


def entry(key: str, to: str, method: str = "POST", path: str | None = None) -> dict[str, Any]:
    """Make an input step that the outside may start runs at."""
    hook = {"method": method} if path is None else {"method": method, "path": path}
    return {"type": "input", "key": key, "input": FIELDS, "webhook": hook, "destinations": [to]}


STEPS = (
    entry("posted", "told"),
    code("told", "return input"),
    entry("asked", "answer", "GET", "/ask/me"),
    code("answer", "return input"),
)


async def addresses(caller: Caller, workflow_id: str) -> tuple[str, str]:
    """Return the paths of the latest version's address and the draft's."""
    found = await caller.ok("GET", f"/workflows/{workflow_id}/hooks")
    assert [one["target"] for one in found] == ["latest", "draft"]
    latest, draft = (httpx.URL(one["url"]).path for one in found)
    return latest, draft


async def test_a_call_starts_a_run_and_is_answered_its_result(platform: Platform) -> None:
    acme = platform.acme
    workflow = await acme.make(*STEPS)
    latest, draft = await addresses(acme, workflow)
    assert latest != draft
    answer = await platform.client.post(latest, json={"n": 1, "more": [2]})
    assert (answer.status_code, answer.json()) == (200, {"n": 1, "more": [2]})
    run = await acme.ok("GET", f"/workflows/{workflow}/runs/{answer.headers['insula-run-id']}")
    assert (run["origin"], run["status"]) == ("WEBHOOK", "COMPLETED")
    assert latest.rpartition("/")[2] not in json.dumps(run)
    form = await platform.client.post(latest + "/", data={"n": "5"})
    assert form.json() == {"n": 5}
    parts = await platform.client.post(latest, files={"doc": ("a.txt", b"hello", "text/plain")})
    assert parts.json()["doc"]["id"].startswith("file_")


async def test_a_query_is_the_input_of_a_get(platform: Platform) -> None:
    workflow = await platform.acme.make(*STEPS)
    latest, _ = await addresses(platform.acme, workflow)
    answer = await platform.client.get(f"{latest}/ask/me?n=7&tags=a&tags=b")
    assert (answer.status_code, answer.json()) == (200, {"n": 7, "tags": ["a", "b"]})


async def test_an_address_is_told_as_it_is_to_be_called(platform: Platform) -> None:
    acme = platform.acme
    path = "/löhne & 100%/was?#1"
    workflow = await acme.make(entry("posted", "told", path=path), code("told", "return 1"))
    (latest, _) = await acme.ok("GET", f"/workflows/{workflow}/hooks")
    called = await platform.client.post(latest["hooks"][0]["url"])
    assert (called.status_code, called.json()) == (200, 1), called.text


async def test_the_draft_has_an_address_of_its_own(platform: Platform) -> None:
    acme = platform.acme
    workflow = await acme.make(*STEPS)
    changed = [entry("posted", "told"), code("told", "return 2")]
    await acme.ok("PATCH", f"/workflows/{workflow}", {"steps": changed})
    latest, draft = await addresses(acme, workflow)
    assert (await platform.client.post(latest, json={"n": 1})).json() == {"n": 1}
    assert (await platform.client.post(draft, json={"n": 1})).json() == 2


async def test_a_rotated_address_starts_nothing_any_more(platform: Platform) -> None:
    acme = platform.acme
    workflow = await acme.make(*STEPS)
    latest, draft = await addresses(acme, workflow)
    assert await addresses(acme, workflow) == (latest, draft)
    rotated = await acme.ok("POST", f"/workflows/{workflow}/hooks/latest/rotate")
    assert (await platform.client.post(latest, json={})).status_code == 404
    path = httpx.URL(rotated["url"]).path
    assert (await platform.client.post(path, json={})).status_code == 200
    assert (await platform.client.post(draft, json={})).status_code == 200
    hooks = {(one["method"], httpx.URL(one["url"]).path) for one in rotated["hooks"]}
    assert hooks == {("POST", path), ("GET", path + "/ask/me")}
    rows = json.dumps(await platform.rows("SELECT * FROM hook_tokens"), default=str)
    assert path.rpartition("/")[2] not in rows


async def test_what_no_step_takes_is_refused(platform: Platform) -> None:
    acme = platform.acme
    workflow = await acme.make(*STEPS)
    latest, _ = await addresses(acme, workflow)
    unknown = await platform.client.post("/hooks/" + "x" * 43, json={})
    elsewhere = await platform.client.post(f"{latest}/other", json={})
    assert (unknown.status_code, elsewhere.status_code) == (404, 404)
    assert unknown.content == elsewhere.content
    otherwise = await platform.client.get(latest)
    assert (otherwise.status_code, otherwise.headers["allow"]) == (405, "POST")
    bad = await platform.client.post(latest, json={"n": "x"})
    assert bad.status_code == 400
    assert bad.json()["errors"][0]["path"] == ["input", "n"]
    listed = await platform.client.post(latest, json=[1])
    assert listed.status_code == 400
    await acme.ok("PATCH", f"/workflows/{workflow}", {"enabled": False})
    assert (await platform.client.post(latest, json={})).status_code == 409


async def test_a_run_that_fails_tells_the_outside_no_reason(platform: Platform) -> None:
    workflow = await platform.acme.make(entry("posted", "a"), code("a", "return fail(private)"))
    latest, _ = await addresses(platform.acme, workflow)
    answer = await platform.client.post(latest, json={})
    assert answer.status_code == 409
    assert "FAILED" in answer.json()["message"]
    assert "private" not in answer.text


async def test_a_call_that_is_repeated_runs_once(platform: Platform) -> None:
    workflow = await platform.acme.make(*STEPS)
    latest, _ = await addresses(platform.acme, workflow)
    ids = set()
    for _ in range(2):
        headers = {"idempotency-key": "one"}
        answer = await platform.client.post(latest, json={"n": 1}, headers=headers)
        ids.add(answer.headers["insula-run-id"])
        assert answer.json() == {"n": 1}
    assert len(ids) == 1
    stored = json.dumps(await platform.rows("SELECT * FROM idempotency"), default=str)
    assert latest.rpartition("/")[2] not in stored


async def test_a_repeat_is_answered_though_nothing_could_be_started(platform: Platform) -> None:
    acme, headers = platform.acme, {"idempotency-key": "one"}
    workflow = await acme.make(*STEPS)
    latest, _ = await addresses(acme, workflow)
    first = await platform.client.post(latest, json={"n": 1}, headers=headers)
    asked = await platform.client.get(f"{latest}/ask/me?n=1", headers=headers)
    await acme.ok("PATCH", f"/workflows/{workflow}", {"enabled": False})
    again = await platform.client.post(latest, json={"n": 1}, headers=headers)
    assert (again.status_code, again.json()) == (200, {"n": 1})
    assert again.headers["insula-run-id"] == first.headers["insula-run-id"]
    repeated = await platform.client.get(f"{latest}/ask/me?n=1", headers=headers)
    assert repeated.headers["insula-run-id"] == asked.headers["insula-run-id"]
    other = await platform.client.post(latest, json={"n": 2}, headers=headers)
    new = await platform.client.post(latest, json={"n": 2}, headers={"idempotency-key": "two"})
    head = await platform.client.head(f"{latest}/ask/me?n=1", headers=headers)
    assert (other.status_code, new.status_code, head.status_code) == (422, 409, 409)


async def test_another_query_under_the_same_key_is_another_request(platform: Platform) -> None:
    workflow = await platform.acme.make(*STEPS)
    latest, _ = await addresses(platform.acme, workflow)
    for query, status in (("n=7", 200), ("n=8", 422), ("n=7", 200)):
        headers = {"idempotency-key": "one"}
        answer = await platform.client.get(f"{latest}/ask/me?{query}", headers=headers)
        assert answer.status_code == status, answer.text


async def test_addresses_are_for_keys_that_may_write_and_go_with_the_workflow(
    platform: Platform,
) -> None:
    acme = platform.acme
    workflow = await acme.make(*STEPS)
    latest, _ = await addresses(acme, workflow)
    key = (await acme.ok("POST", "/keys", {"name": "r", "read_only": True}))["key"]
    reader = Caller(acme.id, key, platform.client)
    assert (await reader.ask("GET", f"/workflows/{workflow}/hooks")).status_code == 403
    other = await platform.globex.ask("GET", f"/workflows/{workflow}/hooks")
    assert other.status_code == 404
    assert (await acme.ask("DELETE", f"/workflows/{workflow}")).status_code == 200
    assert (await platform.client.post(latest, json={})).status_code == 404
    assert await platform.rows("SELECT * FROM hook_tokens") == []


async def test_what_goes_nowhere_is_not_there_whatever_was_sent(platform: Platform) -> None:
    latest, _ = await addresses(platform.acme, await platform.acme.make(*STEPS))
    headers = {"idempotency-key": "one", "content-type": "application/json"}
    answer = await platform.client.post(f"{latest}/nowhere", content=b"{", headers=headers)
    assert answer.status_code == 404
