"""Records in bad company: workflows that go, inputs that grow, very many of everything."""

import asyncio
from typing import Any

from tests.runs.platform import Platform, code

from .stage import collection, judge, rested, rule, verdicts


def given(*keys: str) -> dict[str, Any]:
    return {key: {"text": "x"} for key in keys}


async def test_a_workflow_deleted_in_mid_analysis_ends_its_rules_alone(
    platform: Platform,
) -> None:
    acme = platform.acme
    flow = await acme.make(*judge("wait(doomed)"))
    rules = [
        {"name": "Runs", "key": "runs", "workflow_id": flow},
        {"name": "Later", "key": "later", "workflow_id": flow, "execution_order": "after-all"},
        await rule(acme, "other", "wait(other)"),
    ]
    path = await collection(acme, *rules)
    body = {"rules": given("runs", "later", "other"), "run": "all"}
    made = await acme.ok("POST", f"{path}/records", body)
    one = f"{path}/records/{made['id']}"
    await platform.reached("doomed")
    await platform.reached("other")
    await acme.ok("DELETE", f"/workflows/{flow}")
    during = await acme.ok("GET", one)
    assert (during["rules"]["runs"]["status"], during["status"]) == ("DRAFT", "RUNNING")
    platform.gate("other").opened.set()
    found = await rested(acme, one, verbose="all")
    assert found["status"] == "CANCELLED"
    assert verdicts(found) == {"runs": "DRAFT", "later": "FAILED", "other": "PASSED"}
    assert "cancelled" in found["rules"]["runs"]["error"]
    assert found["rules"]["later"]["run"] is None
    assert found["config"]["rules"][0]["workflow"]["deleted"] is True
    answer = await acme.ask("POST", f"{one}/run", {"mode": "changed"})
    paths = [error["path"] for error in answer.json()["errors"]]
    assert (answer.status_code, paths) == (400, [["rules", "runs"], ["rules", "later"]])
    assert (await acme.ask("GET", f"{one}/download")).status_code == 200


async def test_a_workflow_closed_in_mid_analysis_fails_what_has_not_begun(
    platform: Platform,
) -> None:
    acme, globex = platform.acme, platform.globex
    flow = await acme.publish(*judge("wait(a)"))
    rules = [
        {"name": "Runs", "key": "runs", "workflow_id": flow},
        {"name": "Later", "key": "later", "workflow_id": flow, "execution_order": "after-all"},
    ]
    path = await collection(globex, *rules)
    body = {"rules": given("runs", "later"), "run": "all"}
    made = await globex.ok("POST", f"{path}/records", body)
    one = f"{path}/records/{made['id']}"
    await platform.reached("a")
    await acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    platform.gate("a").opened.set()
    found = await rested(globex, one)
    assert (found["status"], verdicts(found)) == ("FAILED", {"runs": "PASSED", "later": "FAILED"})
    assert found["rules"]["later"]["run"] is None


async def test_rules_updated_while_they_run_are_refused_and_change_nothing(
    platform: Platform,
) -> None:
    acme = platform.acme
    a = await rule(acme, "a", "wait(a)")
    path = await collection(acme, a)
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
    one = f"{path}/records/{made['id']}"
    await platform.reached("a")
    await acme.ok("PATCH", f"{path}/config", {"rules": [await rule(acme, "b")]})
    answers = await asyncio.gather(*[acme.ask("POST", f"{one}/update-rules") for _ in range(5)])
    assert {answer.status_code for answer in answers} == {409}
    platform.gate("a").opened.set()
    found = await rested(acme, one)
    assert verdicts(found) == {"a": "PASSED"}
    await acme.ok("POST", f"{one}/update-rules")
    assert verdicts(await acme.ok("GET", one)) == {"b": "DRAFT"}


async def test_one_deletes_while_others_cancel_and_look(platform: Platform) -> None:
    acme = platform.acme
    rules = [await rule(acme, key, f"wait({key})") for key in ("a", "b", "c")]
    path = await collection(acme, *rules)
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a", "b", "c"), "run": "all"})
    one = f"{path}/records/{made['id']}"
    await platform.reached("a")
    asked = [("DELETE", one), ("POST", f"{one}/cancel"), ("GET", one), ("DELETE", one)] * 3
    answers = await asyncio.gather(*[acme.ask(method, where) for method, where in asked])
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert (await acme.ask("GET", one)).status_code == 404
    assert not list(platform.services.live)
    for table in ("records", "record_rules"):
        assert await platform.rows(f"SELECT 1 FROM {table}") == []
    count = (await acme.ask("GET", f"{path}/records")).headers["pagination-count"]
    assert count == "0"


async def test_a_circle_of_mappings_is_refused_in_words(platform: Platform) -> None:
    acme = platform.acme
    circle = [
        {"source_path": "a:text", "destination_paths": ["a:text.left", "b:text"]},
        {"source_path": "a:n", "destination_paths": ["a:n.left", "a:n.right"]},
    ]
    rules = [await rule(acme, "a"), await rule(acme, "b")]
    path = await collection(acme, *rules, mappings=circle * 40)
    answer = await acme.ask("POST", f"{path}/records", {"rules": {"a": {"n": {"v": 1}}}})
    assert answer.status_code == 400
    assert "mappings copy more than" in answer.json()["message"]
    # Without what would grow, the rest of it is a mapping as any other.
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a")})
    assert made["rules"]["b"]["input"] == {"text": "x"}


async def test_an_input_that_is_too_large_is_refused_by_its_rule(platform: Platform) -> None:
    acme = platform.acme
    mapping = {"source_path": "a:text", "destination_paths": ["b:text", "b:note"]}
    rules = [await rule(acme, "a"), await rule(acme, "b")]
    path = await collection(acme, *rules, mappings=[mapping])
    for size, key in ((1024 * 1024 + 100, "a"), (600_000, "b")):
        body = {"rules": {"a": {"text": "x" * size}}}
        answer = await acme.ask("POST", f"{path}/records", body)
        assert answer.status_code == 400
        (error,) = answer.json()["errors"]
        assert (error["path"], error["code"]) == (["rules", key], "too_long")
    assert await acme.ok("GET", f"{path}/records") == []


async def test_a_thousand_rules(platform: Platform, kind: str) -> None:
    acme, count = platform.acme, 1_000 if kind == "sqlite" else 200
    flow = await acme.make(code("decide", "return true"))
    held = await acme.make(code("decide", "return wait(held)"))
    keys = [f"r{number}" for number in range(count)]
    rules = [
        {"name": key, "key": key, "workflow_id": held if number % 4 == 3 else flow}
        for number, key in enumerate(keys)
    ]
    path = await collection(acme, *rules)
    more = await acme.ask("PATCH", f"{path}/config", {"rules": [rules[0]] * 1_001})
    assert more.status_code == 400
    made = await acme.ok("POST", f"{path}/records", {"run": "all"})
    one = f"{path}/records/{made['id']}"
    await platform.reached("held")
    cancelled = await acme.ok("POST", f"{one}/cancel")
    assert cancelled["status"] == "CANCELLED"
    assert not list(platform.services.live)
    ended = [key for key, status in verdicts(cancelled).items() if status == "PASSED"]
    platform.gate("held").opened.set()
    await acme.ok("POST", f"{one}/run", {"mode": "changed"})
    live = "SELECT 1 FROM records WHERE status IN ('QUEUED', 'RUNNING')"
    async with asyncio.timeout(90):
        while await platform.rows(live):  # noqa: ASYNC110  # the record itself is large to read
            await asyncio.sleep(0.05)
    found = await acme.ok("GET", one)
    assert (found["status"], found["rules_pass_count"]) == ("COMPLETED", count)
    for key in ended:
        assert found["rules"][key]["run"]["id"] == cancelled["rules"][key]["run"]["id"]
