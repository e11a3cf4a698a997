"""A deploy that needs its tests: what counts as passed, whatever happens at the same time."""

import asyncio
from typing import Any

import pytest
from tests.runs.platform import Caller, Platform, code

SQLITE = pytest.mark.parametrize("platform", ["sqlite"], indirect=True)
"""For what does not depend on the database."""
ONE = [{"key": "k", "name": "k", "script": "result"}]


async def gated(caller: Caller, script: str = "return 1") -> str:
    """Make a workflow whose first version is deployed, and whose draft says this, under a gate."""
    flow = await caller.make(code("a", "return 100"))
    draft = {"require_tests": True, "steps": [code("a", script)]}
    await caller.ok("PATCH", f"/workflows/{flow}", draft)
    return flow


async def with_test(caller: Caller, flow: str, **fields: Any) -> str:
    made = await caller.ok(
        "POST", f"/workflows/{flow}/tests", {"name": "T", "expectations": ONE, **fields}
    )
    return str(made["id"])


async def execute(caller: Caller, flow: str, test: str, **body: Any) -> Any:
    return await caller.ok("POST", f"/workflows/{flow}/tests/{test}/runs", body)


async def deploys(caller: Caller, flow: str) -> bool:
    answer = await caller.ask("POST", f"/workflows/{flow}/versions", {})
    assert answer.status_code in (200, 409), answer.text
    if answer.status_code == 409:
        told = {error["code"] for error in answer.json().get("errors", [])}
        assert told == {"not_passed"} or "same already" in answer.json()["message"]
    return answer.status_code == 200


@SQLITE
async def test_without_tests_there_is_nothing_to_pass(platform: Platform) -> None:
    flow = await gated(platform.acme)
    assert await deploys(platform.acme, flow)


async def test_an_edit_between_the_tests_and_the_deploy_is_noticed(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme)
    test = await with_test(acme, flow)
    assert (await execute(acme, flow, test))["status"] == "PASSED"
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 2")]})
    assert not await deploys(acme, flow)
    # Back to what was tried, it may be deployed: it is the same draft.
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 1")]})
    assert await deploys(acme, flow)


@SQLITE
async def test_an_edit_while_the_tests_run_is_noticed(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme, "return wait(GO)")
    test = await with_test(acme, flow)
    running = asyncio.ensure_future(execute(acme, flow, test))
    await platform.reached("GO")
    assert not await deploys(acme, flow)
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 2")]})
    platform.gate("GO").opened.set()
    assert (await running)["status"] == "PASSED"  # but what ran is not the draft any more
    assert not await deploys(acme, flow)
    assert (await execute(acme, flow, test))["status"] == "PASSED"
    assert await deploys(acme, flow)


async def test_edits_and_deploys_at_once_deploy_only_what_was_tried(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme)
    test = await with_test(acme, flow)
    await execute(acme, flow, test)

    async def edit() -> None:
        await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 2")]})

    await asyncio.gather(deploys(acme, flow), edit(), deploys(acme, flow))
    for number in range(2, 4):
        answer = await acme.ask("GET", f"/workflows/{flow}/versions/{number}")
        if answer.status_code == 200:
            assert answer.json()["steps"][0]["code"] == "return 1"


@SQLITE
async def test_a_test_that_was_cancelled_has_not_passed(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme, "return wait(GO)")
    test = await with_test(acme, flow)
    running = asyncio.ensure_future(execute(acme, flow, test))
    await platform.reached("GO")
    await acme.ok("POST", f"/workflows/{flow}/tests/{test}/cancel")
    assert (await running)["status"] == "CANCELLED"
    assert not await deploys(acme, flow)
    # One that had passed and is cancelled when it is run again, neither.
    platform.gate("GO").opened.set()
    assert (await execute(acme, flow, test))["status"] == "PASSED"
    platform.gate("GO").opened.clear()
    platform.gate("GO").reached.clear()
    again = asyncio.ensure_future(execute(acme, flow, test))
    await platform.reached("GO")
    await acme.ok("POST", f"/workflows/{flow}/tests/cancel")
    assert (await again)["status"] == "CANCELLED"
    assert not await deploys(acme, flow)


@SQLITE
async def test_a_test_of_another_version_is_no_test_of_the_draft(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme)
    test = await with_test(acme, flow)
    old = await execute(acme, flow, test, workflow_version_number=1)
    assert (old["status"], old["run"]["result"]) == ("PASSED", 100)
    assert not await deploys(acme, flow)
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 100")]})
    answer = await acme.ask("POST", f"/workflows/{flow}/versions", {})
    assert (answer.status_code, "same" in answer.json()["message"]) == (409, True)


@SQLITE
async def test_tests_of_other_workflows_do_not_count(platform: Platform) -> None:
    acme = platform.acme
    flow, other = await gated(acme), await gated(acme)
    await with_test(acme, other)
    assert not await deploys(acme, other)
    assert await deploys(acme, flow)


async def test_a_test_that_was_changed_has_to_pass_again(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme)
    test = await with_test(acme, flow)
    changes: list[dict[str, Any]] = [
        {"input": {"n": 1}},
        {"input_context": {"a": 5}},
        {"expectations": []},
        {"step_key": "a"},
    ]
    for change in changes:
        assert (await execute(acme, flow, test))["status"] == "PASSED"
        await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", change)
        assert not await deploys(acme, flow)
    assert (await execute(acme, flow, test))["status"] == "PASSED"
    await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", {"name": "Another"})
    assert await deploys(acme, flow)


async def test_a_shared_expectation_that_was_changed_has_to_be_met_again(
    platform: Platform,
) -> None:
    acme = platform.acme
    flow = await gated(acme)
    path = f"/workflows/{flow}/tests/expectations"
    shared, other = [
        (await acme.ok("POST", path, {"name": "S", "script": "result"}))["id"] for _ in range(2)
    ]
    named = [{"key": "k", "name": "k", "expectation_id": shared}]
    sharing = await with_test(acme, flow, expectations=named)
    apart = await with_test(acme, flow)

    async def passed() -> set[str]:
        """Return the tests that have passed on the draft: a deploy does not name them."""
        answer = await acme.ask("POST", f"/workflows/{flow}/versions", {})
        left = {error["path"][1] for error in answer.json().get("errors", [])}
        return {sharing, apart} - left

    for method, change in (("PATCH", {"script": "result === 1"}), ("DELETE", None)):
        await acme.ok("PATCH", f"{path}/{shared}", {"script": "result"})
        for test in (sharing, apart):
            assert (await execute(acme, flow, test))["status"] == "PASSED"
        await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 7")]})
        assert await passed() == set()
        for test in (sharing, apart):
            assert (await execute(acme, flow, test))["status"] == "PASSED"
        # Neither its name, nor the same words, nor another one's words.
        await acme.ok("PATCH", f"{path}/{shared}", {"name": "T", "script": "result"})
        await acme.ok("PATCH", f"{path}/{other}", {"script": "false"})
        await acme.ask(method, f"{path}/{shared}", change)
        assert await passed() == {apart}
        await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 1")]})
    assert (await execute(acme, flow, sharing))["status"] == "FAILED"


async def test_what_is_being_judged_is_judged_again(platform: Platform) -> None:
    """A shared expectation is changed while a verdict by it is on its way."""
    acme = platform.acme
    flow = await gated(acme)
    path = f"/workflows/{flow}/tests/expectations"
    shared = (await acme.ok("POST", path, {"name": "S", "script": "wait(GO)"}))["id"]
    named = [{"key": "k", "name": "k", "expectation_id": shared}]
    test = await with_test(acme, flow, expectations=named)
    running = asyncio.ensure_future(execute(acme, flow, test))
    await platform.reached("GO")
    await acme.ok("PATCH", f"{path}/{shared}", {"script": "false"})
    platform.gate("GO").opened.set()
    assert (await running)["status"] == "FAILED"
    assert not await deploys(acme, flow)


@SQLITE
async def test_judging_a_run_of_the_draft_again_counts_for_it(platform: Platform) -> None:
    acme = platform.acme
    flow = await gated(acme)
    test = await with_test(acme, flow, expectations=[{"key": "k", "name": "k", "script": "false"}])
    assert (await execute(acme, flow, test))["status"] == "FAILED"
    await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", {"expectations": ONE})
    assert not await deploys(acme, flow)
    judged = await execute(acme, flow, test, execute_expectations_only=True)
    assert judged["status"] == "PASSED"
    assert await deploys(acme, flow)
