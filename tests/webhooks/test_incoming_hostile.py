"""Calls from the outside that mean no good: none is an error of ours, and what is refused runs
nothing.
"""

import asyncio
import gzip
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.runs.platform import Platform, code, open_platform
from tests.webhooks.test_incoming import STEPS, addresses, entry

pytestmark = pytest.mark.parametrize("platform", ["sqlite"], indirect=True)
Given = dict[str, Any]


async def runs(platform: Platform) -> int:
    return len(await platform.rows("SELECT id FROM runs"))


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


UNREADABLE: list[tuple[bytes, str, int]] = [
    (b'{"tags": "\xff"}', JSON, 400),
    (b"\xff\xfe{\x00}\x00", JSON, 400),
    (b'{"n": 1', JSON, 400),
    (b"[1]", JSON, 400),
    (b"null", JSON, 400),
    (b'"text"', JSON, 400),
    (b'{"tags": "\\ud800"}', JSON, 400),
    (b'{"n": NaN}', JSON, 400),
    (b'{"n": 1e999}', JSON, 400),
    (b'{"a":' * 300 + b"1" + b"}" * 300, JSON, 400),
    (b"hello", "text/plain", 415),
    (b"hello", "multipart/form-data", 400),
    (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400),
    (b'<?xml version="1.0"?><a/>', "application/xml", 415),
    (b"tags=\xff", FORM, 400),
    (b"tags=%ff", FORM, 400),
    (b"tags=%ed%a0%80", FORM, 400),
]


async def test_bodies_that_cannot_be_read_start_nothing(platform: Platform) -> None:
    latest, _ = await addresses(platform.acme, await platform.acme.make(*STEPS))
    for body, kind, status in UNREADABLE:
        answer = await platform.client.post(latest, content=body, headers={"content-type": kind})
        assert answer.status_code == status, (body, answer.text)
        assert answer.json()["message"]
    assert await runs(platform) == 0


async def test_what_is_packed_is_not_unpacked(platform: Platform) -> None:
    latest, _ = await addresses(platform.acme, await platform.acme.make(*STEPS))
    headers = {"content-encoding": "gzip", "content-type": JSON}
    answer = await platform.client.post(latest, content=gzip.compress(b"{}"), headers=headers)
    assert answer.status_code == 415
    assert await runs(platform) == 0


ODD: list[Given] = [
    {"content": b"=&&&a&=b", "headers": {"content-type": FORM}},
    {"json": {"__proto__": {"a": 1}, "constructor": 1, "toString": 2, "hasOwnProperty": 3}},
    {"json": {"model_extra": 1, "model_config": {}, "copy": 2, "__class__": 3, "self": 4}},
    {"json": {"__pydantic_extra__": {"a": 1}, "__dict__": {}, "input": {"n": "x"}}},
    {"json": {"": 1, "\x00": 2, "a.b[c]": 3, "n": 1e30}},
]


async def test_what_is_odd_is_taken_as_it_is(platform: Platform) -> None:
    latest, _ = await addresses(platform.acme, await platform.acme.make(*STEPS))
    for given in ODD:
        answer = await platform.client.post(latest, **given)
        assert answer.status_code == 200, answer.text
        if "json" in given:
            assert answer.json() == given["json"]


QUERIES = [
    ("tags=%ff%fe", 200),
    ("tags=%ed%a0%80", 200),
    ("%00=%00", 400),
    ("n=1&n=2", 400),
    ("n=" + "9" * 5_000, 400),
    ("&".join(f"f{number}=1" for number in range(1_001)), 400),
    ("__proto__=1&constructor=2", 200),
]


async def test_queries_are_text_of_anybody(platform: Platform) -> None:
    latest, _ = await addresses(platform.acme, await platform.acme.make(*STEPS))
    for query, status in QUERIES:
        answer = await platform.client.get(f"{latest}/ask/me?{query}")
        assert answer.status_code == status, (query, answer.text)


async def test_files_that_are_stored_are_at_nobody_s_disposal(platform: Platform) -> None:
    acme, client = platform.acme, platform.client
    latest, _ = await addresses(acme, await acme.make(*STEPS))
    private = await acme.ok("POST", "/files", {"file": "data:,contract"})
    plain = private["file_url"].partition("?")[0]
    for given in (private["id"], private, {"future_file_id": private["id"]}, plain):
        answer = await client.post(latest, json={"doc": given})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, ["input", "doc"])
    asked = await client.get(f"{latest}/ask/me", params={"doc": private["id"]})
    assert asked.status_code == 400
    assert await runs(platform) == 0
    # Whoever has an address that is good could send what it gives, and has no more of it so.
    sent = await client.post(latest, json={"doc": private["file_url"]})
    assert (sent.status_code, sent.json()["doc"]["id"] == private["id"]) == (200, False)


async def test_a_file_that_is_configured_is_the_app_s(platform: Platform) -> None:
    acme = platform.acme
    stored = await acme.ok("POST", "/files", {"file": "data:,form"})
    posted = entry("posted", "told")
    posted["input"] = {"doc": {"type": "file", "config": True}}
    default = {"doc": stored["id"]}
    workflow = await acme.make(posted, code("told", "return input"), input_default=default)
    latest, _ = await addresses(acme, workflow)
    answer = await platform.client.post(latest, json={})
    assert answer.json()["doc"]["id"] == stored["id"]


async def test_methods_that_nobody_declared_run_nothing_and_tell_nothing(
    platform: Platform,
) -> None:
    latest, _ = await addresses(platform.acme, await platform.acme.make(*STEPS))
    for method in ("HEAD", "OPTIONS", "TRACE", "PROPFIND", "PUT", "DELETE"):
        for path in (latest, f"{latest}/ask/me"):
            known = await platform.client.request(method, path)
            unknown = await platform.client.request(method, "/hooks/" + "x" * 43)
            assert known.status_code == (200 if method == "OPTIONS" else 405), (method, path)
            assert unknown.status_code in (200, 404, 405)
    assert await runs(platform) == 0


async def test_paths_and_tokens_are_what_they_say(platform: Platform) -> None:
    steps = (entry("asked", "answer", "GET", "/ask/me"), code("answer", "return 1"))
    latest, _ = await addresses(platform.acme, await platform.acme.make(*steps))
    tails = ("/../ask/me", "//ask//me", "/%2e%2e/ask/me", "/ask/me%00", "/ask%2fme/x", "/" * 3_000)
    tokens = ("", "x", "%C3%A9" * 43, "x" * 42, "x" * 44, "%00" * 43, "x" * 9_000)
    for path in (*(latest + tail for tail in tails), *(f"/hooks/{token}" for token in tokens)):
        url = httpx.URL("http://test", raw_path=path.encode())
        assert (await platform.client.get(url)).status_code == 404, path[:100]
    assert await runs(platform) == 0


async def test_a_token_that_is_rotated_in_mid_request_ends_what_it_began(
    platform: Platform,
) -> None:
    acme = platform.acme
    workflow = await acme.make(entry("posted", "a"), code("a", "return wait(GO)"))
    latest, _ = await addresses(acme, workflow)
    calling = asyncio.ensure_future(platform.client.post(latest, json={}))
    await platform.reached("GO")
    await acme.ok("POST", f"/workflows/{workflow}/hooks/latest/rotate")
    platform.gate("GO").opened.set()
    assert (await calling).json() == "GO"
    assert (await platform.client.post(latest, json={})).status_code == 404


async def test_two_workflows_may_have_the_same_path(platform: Platform) -> None:
    steps = [entry("asked", "a", "GET", "/same")]
    found = []
    for caller, said in ((platform.acme, 1), (platform.acme, 2), (platform.globex, 3)):
        workflow = await caller.make(*steps, code("a", f"return {said}"))
        latest, _ = await addresses(caller, workflow)
        found.append((await platform.client.get(f"{latest}/same")).json())
    assert found == [1, 2, 3]


async def test_of_two_steps_with_one_address_the_first_is_called(platform: Platform) -> None:
    workflow = await platform.acme.make(
        entry("one", "a", "GET", "/same"),
        entry("two", "b", "GET", "same/"),
        code("a", "return 1"),
        code("b", "return 2"),
    )
    latest, _ = await addresses(platform.acme, workflow)
    assert (await platform.client.get(f"{latest}/same")).json() == 1


async def test_all_limits_apply(platform: Platform, tmp_path: Path) -> None:
    limits = {"body_max": 2_048, "rate_limit": 12, "runs_max": 1}
    async with open_platform(tmp_path / "limited", **limits) as platform:
        workflow = await platform.acme.make(entry("posted", "a"), code("a", "return wait(GO)"))
        latest, _ = await addresses(platform.acme, workflow)
        large = await platform.client.post(latest, json={"more": "x" * 3_000})
        assert large.status_code == 413
        calling = asyncio.ensure_future(platform.client.post(latest, json={}))
        await platform.reached("GO")
        crowded = await platform.client.post(latest, json={})
        assert (crowded.status_code, "retry-after" in crowded.headers) == (429, True)
        guesses = [await platform.client.post("/hooks/" + "x" * 43) for _ in range(60)]
        assert {answer.status_code for answer in guesses} == {404, 429}
        assert "INSULA_RATE_LIMIT" in guesses[-1].text
        assert "retry-after" in guesses[-1].headers
        platform.gate("GO").opened.set()
        assert (await calling).status_code == 200
