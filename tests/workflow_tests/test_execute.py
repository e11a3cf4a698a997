"""Tests executed: judged, failed, faked, cancelled, all at once, and in the contract's shape."""

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.contract import ContractFile, validate
from tests.runs.platform import Caller, Platform, code, model, open_platform, parse

from insula.kit.json import encode
from insula.workflow_tests import endpoints, repository

START = {"type": "input", "key": "i", "input": {"n": {"type": "number"}}}


def conforms(test: Any) -> Any:
    if ContractFile.present:
        validate(test, "WorkflowTestSchema")
    return test


def expects(key: str, script: str) -> dict[str, Any]:
    return {"key": key, "name": key, "script": script}


async def flow_of(caller: Caller, *steps: dict[str, Any]) -> str:
    """Make a workflow that is not deployed."""
    body = {"name": "W", "steps": list(steps)}
    return str((await caller.ok("POST", "/workflows", body))["id"])


async def make(caller: Caller, flow: str, **fields: Any) -> str:
    body = {"name": "T", **fields}
    made = await caller.ok("POST", f"/workflows/{flow}/tests", body)
    assert (made["status"], made["run"]) == ("DRAFT", None)
    return str(conforms(made)["id"])


async def execute(caller: Caller, flow: str, test: str, **body: Any) -> Any:
    return conforms(await caller.ok("POST", f"/workflows/{flow}/tests/{test}/runs", body))


async def test_one_is_judged_by_its_expectations(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, {**START, "destinations": ["a"]}, code("a", "return input"))
    base = f"/workflows/{flow}/tests"
    shared = await acme.ok("POST", base + "/expectations", {"name": "n is 7", "script": "result.n"})
    if ContractFile.present:
        validate(shared, "WorkflowExpectationSchema")
    items = [
        expects("status", "run.status"),
        expects("seen", "a.output.n"),
        {"key": "shared", "name": "S", "expectation_id": shared["id"]},
    ]
    test = await make(acme, flow, input={"n": 7}, expectations=items)
    done = await execute(acme, flow, test)
    assert done["status"] == "PASSED"
    assert [item["status"] for item in done["expectations"]] == ["PASSED"] * 3
    assert [item["output"] for item in done["expectations"]] == ["COMPLETED", 7, 7]
    assert (done["expectations_passing_count"], done["expectations_failing_count"]) == (3, 0)
    assert (done["run"]["origin"], done["run"]["workflow_version"]) == ("TEST", None)
    assert done["run"]["workflow_version_draft"] is not None
    await acme.ok("PATCH", f"{base}/expectations/{shared['id']}", {"script": "false"})
    again = await execute(acme, flow, test, execute_expectations_only=True)
    assert (again["status"], again["run"]["id"]) == ("FAILED", done["run"]["id"])
    assert again["expectations"][2] == {**items[2], "output": False, "status": "FAILED"}
    assert await acme.ok("DELETE", f"{base}/expectations/{shared['id']}") is None
    gone = await execute(acme, flow, test, execute_expectations_only=True)
    assert "gone" in gone["expectations"][2]["logs"][0]["args"][0]
    stats = await acme.ok("GET", base + "/stats")
    assert (
        stats["failing_count"] == stats["total_count"] == stats["expectations_failing_count"] == 1
    )
    assert (await acme.ok("GET", f"/workflows/{flow}"))["tests_stats"] == stats
    if ContractFile.present:
        validate(stats, "WorkflowTestStatsSchema")


async def test_an_exception_fails_with_logs_and_so_does_a_run(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "fail(badly)"))
    test = await make(acme, flow, expectations=[expects("e", "fail(too)"), expects("f", "true")])
    done = await execute(acme, flow, test)
    assert (done["status"], done["run"]["status"]) == ("FAILED", "FAILED")
    first, second = done["expectations"]
    assert (first["status"], second["status"]) == ("FAILED", "PASSED")
    assert first["logs"][0]["args"] == ["It failed: too"]
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 1")]})
    assert (await execute(acme, flow, test))["status"] == "FAILED"
    only = await acme.ok(
        "PATCH", f"/workflows/{flow}/tests/{test}", {"expectations": [expects("f", "true")]}
    )
    assert conforms(only)["expectations"][0]["status"] == "PASSED"
    assert (await execute(acme, flow, test))["status"] == "PASSED"


async def test_steps_are_faked_and_the_start_is_chosen(platform: Platform) -> None:
    acme = platform.acme
    steps = [
        {**START, "destinations": ["a"], "input": {}},
        code("a", "fail(never)", "b"),
        code("b", "return a.output.x", "c"),
        code("c", "return b.output"),
    ]
    flow = await flow_of(acme, *steps)
    whole = await make(acme, flow, input_context={"a": {"x": 5}})
    done = await execute(acme, flow, whole)
    assert (done["status"], done["run"]["result"]) == ("PASSED", 5)
    assert done["run"]["output"]["a"]["output"] == {"x": 5}
    part = await make(acme, flow, input_context={"a": {"x": 6}}, step_key="b")
    assert (await execute(acme, flow, part))["run"]["result"] == 6
    wrong = await make(acme, flow, input_context={"nowhere": 1})
    told = await execute(acme, flow, wrong)
    assert (told["status"], told["run"]) == ("FAILED", None)
    assert "input_context.nowhere" in told["error"]


async def test_given_outputs_are_as_their_steps_give_them(platform: Platform) -> None:
    acme = platform.acme
    steps = [
        {**START, "destinations": ["m"], "input": {}},
        model("m", [{"text": "hi"}], "each"),
        model("each", [{"text": "hi"}], "b", loop="index < 2"),
        {
            "type": "branch",
            "key": "b",
            "destinations": [],
            "conditions": {"x": {"condition": "true", "destinations": ["c"], "order": 0}},
        },
        code("c", "return 1"),
    ]
    flow = await flow_of(acme, *steps)
    wrong: list[tuple[dict[str, Any], list[str]]] = [
        ({"m": [1, {"raw": 2}]}, ["input_context", "m"]),
        ({"b": "x", "c": "x"}, ["input_context", "b"]),
        ({"each": {"message": 1}}, ["input_context", "each"]),
        ({"each": [{}, 1, 2]}, ["input_context", "each", "1"]),
    ]
    test = await make(acme, flow, input_context={"c": [1]})
    for given, path in wrong:
        for method, at in (("POST", ""), ("PATCH", f"/{test}")):
            body = {"name": "T", "input_context": given}
            answer = await acme.ask(method, f"/workflows/{flow}/tests{at}", body)
            assert answer.status_code == 400, answer.text
            (error,) = answer.json()["errors"]
            assert (error["path"], error["code"]) == (path, "type")
        # What only the version that runs can tell fails the test there.
        await platform.change(
            "UPDATE workflow_tests SET input_context = :given WHERE id = :id",
            given=encode(given),
            id=test,
        )
        told = await execute(acme, flow, test)
        assert (told["status"], told["run"]) == ("FAILED", None)
        assert ".".join(path) in told["error"]
    said = {"provider": "mock", "model": "mock-1", "message": "hi"}
    fits = {"m": {**said, "raw": {"id": 2}}, "each": [said], "b": {"x": False}, "c": None}
    assert (await execute(acme, flow, await make(acme, flow, input_context=fits)))["run"]
    assert len(await acme.ok("GET", "/runs?verbose=all")) == 1


async def test_a_secret_that_cannot_be_read_is_named(platform: Platform) -> None:
    acme = platform.acme
    secret = {"key": "TOKEN", "value": "a secret value", "secret": True}
    await acme.ok("POST", "/variables", secret)
    flow = await flow_of(acme, code("a", "return 1"))
    test = await make(acme, flow, expectations=[expects("e", "true")])
    await platform.change("UPDATE variables SET sealed = :sealed", sealed=b"\x01" + bytes(60))
    done = await execute(acme, flow, test)
    assert (done["status"], done["run"]["status"]) == ("FAILED", "FAILED")
    assert "The secret TOKEN" in done["error"]


async def test_defaults_and_input_problems(platform: Platform) -> None:
    acme = platform.acme
    field = {"n": {"type": "number", "default": 1}}
    flow = await flow_of(
        acme, {**START, "input": field, "destinations": ["a"]}, code("a", "input.n")
    )
    test = await make(acme, flow, input={"n": "x"})
    told = await execute(acme, flow, test)
    assert (told["status"], "n" in told["error"]) == ("FAILED", True)
    await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", {"input": None})
    assert (await execute(acme, flow, test))["status"] in ("PASSED", "FAILED")


@pytest.mark.parametrize("where", ["input", "input_default"])
async def test_a_file_over_the_limit_fails_a_test_that_had_passed(
    tmp_path: Path, where: str
) -> None:
    """What became of it before is not shown beside that."""
    async with open_platform(tmp_path, file_max=1000) as platform:
        acme = platform.acme
        config = where == "input_default"
        fields = {"doc": {"type": "file", "optional": True, "config": config}}
        start = {"type": "input", "key": "i", "input": fields, "destinations": ["a"]}
        flow = await flow_of(acme, start, code("a", "return 1"))
        items = [expects("e", "result")]
        test = await make(acme, flow, expectations=items)
        assert (await execute(acme, flow, test))["expectations"][0]["status"] == "PASSED"
        doc = {"data": "A" * 1001, "encoding": "raw", "name": "x.txt"}
        await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", {where: {"doc": doc}})
        done = await execute(acme, flow, test)
        assert (done["status"], done["run"]) == ("FAILED", None)
        assert "INSULA_FILE_MAX" in done["error"]
        assert done["expectations"] == items
        assert (done["expectations_passing_count"], done["expectations_failing_count"]) == (0, 0)


async def test_all_run_a_few_at_a_time_and_progress_is_told(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "wait(GO)"))
    base = f"/workflows/{flow}/tests"
    ids = [await make(acme, flow) for _ in range(10)]
    begun = await acme.ok("POST", base + "/runs", {})
    assert begun == {"count": 10, "tests": ids}
    await platform.reached("GO")

    async def busy() -> list[Any]:
        return await platform.rows(
            "SELECT id FROM workflow_tests WHERE status = 'RUNNING' AND run_id IS NOT NULL"
        )

    async with asyncio.timeout(10):
        while len(await busy()) < 8:  # noqa: ASYNC110  # of what the database says
            await asyncio.sleep(0.005)
    watching = asyncio.ensure_future(acme.ask("GET", base + "/stream"))
    assert len(await busy()) == 8
    platform.gate("GO").opened.set()
    async with asyncio.timeout(20):
        events = parse((await watching).text)
    assert events[-1].event == "stats"
    assert events[-1].data["passing_count"] == events[-1].data["total_count"] == 10
    listed = await acme.ask("GET", base, params={"status": "PASSED", "take": 3, "verbose": "all"})
    assert listed.headers["pagination-count"] == "10"
    assert [conforms(each)["id"] for each in listed.json()] == ids[::-1][:3]
    short = (await acme.ok("GET", base, params={"take": 1}))[0]
    assert "expectations" not in conforms(short)
    assert (await acme.ok("POST", base + "/runs", {"execute_failed_only": True}))["count"] == 0


async def test_cancel_stops_one_and_all(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "wait(NEVER)"))
    base = f"/workflows/{flow}/tests"
    ids = [await make(acme, flow) for _ in range(10)]
    first = await execute(acme, flow, ids[0], execute_async=True)
    assert first["status"] == "RUNNING"
    again = await acme.ask("POST", f"{base}/{ids[0]}/runs", {})
    assert again.status_code == 409
    await platform.reached("NEVER")
    gone = conforms(await acme.ok("POST", f"{base}/{ids[0]}/cancel"))
    assert (gone["status"], gone["run"]["status"]) == ("CANCELLED", "CANCELLED")
    assert conforms(await acme.ok("POST", f"{base}/{ids[0]}/cancel")) == gone
    await acme.ok("POST", base + "/runs", {})
    stopped = await acme.ok("POST", base + "/cancel")
    assert sorted(stopped["tests"]) == ids
    await platform.idle()
    stats = await acme.ok("GET", base + "/stats")
    assert (stats["cancelled_count"], stats["running_count"]) == (10, 0)
    assert await platform.rows("SELECT id FROM runs WHERE ended_at IS NULL") == []


async def test_versions_are_chosen_and_keys_repeat(platform: Platform) -> None:
    acme = platform.acme
    flow = await acme.make(code("a", "return 1"))
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "return 2")]})
    test = await make(acme, flow)
    old = await execute(acme, flow, test, workflow_version_number=1)
    assert (old["run"]["result"], old["run"]["version"]) == (1, 1)
    path = f"/workflows/{flow}/tests/{test}/runs"
    assert (await acme.ask("POST", path, {"workflow_version_number": 9})).status_code == 404
    headers = {"idempotency-key": "once"}
    new = await acme.ok("POST", path, {}, headers=headers)
    assert new["run"]["result"] == 2
    assert (await acme.ok("POST", path, {}, headers=headers))["run"]["id"] == new["run"]["id"]
    every = f"/workflows/{flow}/tests/runs"
    await acme.ok("POST", every, {}, headers=headers)
    await acme.ok("POST", f"/workflows/{flow}/tests/cancel")
    # Also where nothing could be run any more.
    await acme.ok("PATCH", f"/workflows/{flow}", {"enabled": False})
    assert (await acme.ask("POST", path, {})).status_code == 409
    await acme.ok("POST", path, {}, headers=headers)
    assert await acme.ok("POST", every, {}, headers=headers) == {"count": 0, "tests": []}


async def test_a_page_ends_before_it_has_too_many_bytes(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what the tests were given, and of their runs; one test is shown in any case."""
    monkeypatch.setattr(endpoints, "_LIST_MAX", 10_000)
    acme = platform.acme
    flow = await flow_of(acme, {**START, "destinations": ["a"]}, code("a", "return input"))
    sizes = (100, 100, 6_000, 20_000, 100)
    ids = [await make(acme, flow, input={"n": 1, "x": "x" * size}) for size in sizes]
    await execute(acme, flow, ids[0])
    path, query, pages = f"/workflows/{flow}/tests", {"verbose": "all"}, []
    while True:
        answer = await acme.ask("GET", path, params=query)
        pages.append([ids.index(each["id"]) for each in answer.json()])
        assert answer.headers["pagination-count"] == "5"
        if "pagination-next" not in answer.headers:
            break
        query["next"] = answer.headers["pagination-next"]
    assert pages == [[4], [3], [2, 1, 0]]
    # Without what they were given they are small.
    assert len(await acme.ok("GET", path)) == 5


async def test_forms_are_taken_and_strangers_find_nothing(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    flow = await acme.make(code("a", "return 1"))
    base = f"/workflows/{flow}/tests"
    form = {"name": (None, "F"), "input": (None, encode({"n": 1}).decode())}
    made = await acme.ok("POST", base, files=form)
    assert conforms(made)["input"] == {"n": 1}
    one = f"{base}/{made['id']}"
    for method, path, body in (
        ("GET", base, None),
        ("GET", one, None),
        ("GET", base + "/stats", None),
        ("GET", base + "/stream", None),
        ("GET", base + "/expectations", None),
        ("POST", base, {"name": "x"}),
        ("PATCH", one, {"name": "x"}),
        ("POST", one + "/runs", {}),
        ("POST", one + "/cancel", None),
        ("POST", base + "/runs", {}),
        ("POST", base + "/cancel", None),
        ("DELETE", one, None),
    ):
        assert (await globex.ask(method, path, body)).status_code == 404, (method, path)
    assert await acme.ok("DELETE", one) is None
    assert (await acme.ask("GET", one)).status_code == 404
    await acme.ok("POST", base, {"name": "x"})
    await acme.ok("DELETE", f"/workflows/{flow}")
    assert await platform.rows("SELECT id FROM workflow_tests") == []


async def test_wrong_expectations_are_named(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "return 1"))
    for items, place in (
        ([expects("k", "1"), expects("k", "2")], "1"),
        ([{**expects("k", "1"), "expectation_id": "exp_x"}], "0"),
        ([{"key": "k", "name": "n", "expectation_id": "exp_x"}], "0"),
    ):
        body = {"name": "T", "expectations": items}
        answer = await acme.ask("POST", f"/workflows/{flow}/tests", body)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["path"][:2] == ["expectations", place]


async def test_cancel_stops_a_judgment(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "return 1"))
    items = [expects("never", "wait(JUDGE)")]
    test = await make(acme, flow, expectations=items)
    await execute(acme, flow, test, execute_async=True)
    await platform.reached("JUDGE")
    refused = await acme.ask("PATCH", f"/workflows/{flow}/tests/{test}", {"input": {}})
    assert refused.status_code == 409
    named = await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", {"name": "N"})
    assert (named["name"], named["status"]) == ("N", "RUNNING")
    gone = await acme.ok("POST", f"/workflows/{flow}/tests/{test}/cancel")
    assert (gone["status"], gone["run"]["status"]) == ("CANCELLED", "COMPLETED")
    platform.gate("JUDGE").opened.set()
    assert (await execute(acme, flow, test, execute_expectations_only=True))["status"] == "PASSED"


async def test_a_cancelled_test_keeps_no_earlier_verdicts(platform: Platform) -> None:
    acme = platform.acme
    steps = [code("a", "return 1")]
    flow = await flow_of(acme, *steps)
    test = await make(acme, flow, expectations=[expects("k", "true"), expects("l", "false")])
    base = f"/workflows/{flow}/tests"

    async def judged() -> None:
        await acme.ok("PATCH", f"/workflows/{flow}", {"steps": steps})
        done = await execute(acme, flow, test)
        assert (done["expectations_passing_count"], done["expectations_failing_count"]) == (1, 1)
        await acme.ok("PATCH", f"/workflows/{flow}", {"steps": [code("a", "wait(NEVER)")]})

    async def cancelled() -> None:
        gone = conforms(await acme.ok("POST", f"{base}/{test}/cancel"))
        assert gone["status"] == "CANCELLED"
        assert (gone["expectations_passing_count"], gone["expectations_failing_count"]) == (0, 0)
        assert gone["expectations"] == [expects("k", "true"), expects("l", "false")]

    await judged()
    await execute(acme, flow, test, execute_async=True)
    await platform.reached("NEVER")
    await cancelled()
    # So it is where it waits, and where it is judged.
    await judged()
    await platform.change("UPDATE workflow_tests SET status = 'RUNNING', run_id = NULL")
    await cancelled()
    await judged()
    items = [expects("k", "wait(JUDGE)"), expects("l", "false")]
    await acme.ok("PATCH", f"{base}/{test}", {"expectations": items})
    body = {"execute_expectations_only": True, "execute_async": True}
    await acme.ok("POST", f"{base}/{test}/runs", body)
    await platform.reached("JUDGE")
    gone = await acme.ok("POST", f"{base}/{test}/cancel")
    assert (gone["status"], gone["expectations"]) == ("CANCELLED", items)
    assert (gone["expectations_passing_count"], gone["expectations_failing_count"]) == (0, 0)


async def test_a_running_test_shows_no_earlier_verdicts(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "return 1"))
    items = [expects("k", "true"), expects("l", "result")]
    test = await make(acme, flow, expectations=items)
    done = await execute(acme, flow, test)
    assert [item["status"] for item in done["expectations"]] == ["PASSED", "PASSED"]
    platform.services.draining = True  # nothing is begun, or judged, by itself
    base = f"/workflows/{flow}/tests"
    for body in ({"execute_expectations_only": True}, {}):
        going = await execute(acme, flow, test, execute_async=True, **body)
        assert (going["status"], going["expectations"]) == ("RUNNING", items)
        stats = await acme.ok("GET", base + "/stats")
        assert (stats["running_count"], stats["expectations_passing_count"]) == (1, 0)
        assert (going["run"] is None) == (body == {})
        await platform.change("UPDATE workflow_tests SET status = 'PASSED', passing = 2")
    platform.services.draining = False


async def test_a_change_while_it_is_judged_is_judged_again(platform: Platform) -> None:
    acme = platform.acme
    flow = await flow_of(acme, code("a", "return 1"))
    test = await make(acme, flow, expectations=[expects("k", "wait(JUDGE)")])
    await execute(acme, flow, test, execute_async=True)
    await platform.reached("JUDGE")
    await acme.ok("PATCH", f"/workflows/{flow}/tests/{test}", {"name": "N"})
    platform.gate("JUDGE").opened.set()
    async with asyncio.timeout(10):
        while (await acme.ok("GET", f"/workflows/{flow}/tests/{test}"))["status"] == "RUNNING":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    done = await acme.ok("GET", f"/workflows/{flow}/tests/{test}")
    assert (done["name"], done["status"]) == ("N", "PASSED")


async def test_however_many_tests_wait_those_of_others_get_their_turn(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workflows with all the tests that there may be, and one whose only test is the last."""
    platform.services.draining = True  # nothing is begun by itself
    database = platform.services.database
    flows = sorted([await flow_of(platform.acme, code("a", "return 1")) for _ in range(3)])
    theirs = await flow_of(platform.globex, code("a", "return 1"))
    for flow in (*flows, theirs):
        ids = [await make(platform.acme if flow in flows else platform.globex, flow)]
        if flow in flows:
            ids += [await make(platform.acme, flow) for _ in range(12)]
        await database.write(partial(repository.queue, test_ids=ids, version="draft"))
    await platform.change(
        "UPDATE workflow_tests SET updated_at = CASE WHEN workflow_id = :flow THEN 2 ELSE 1 END",
        flow=theirs,
    )
    found = await database.read(repository.turns)
    waiting = Counter(each.workflow_id for each in found.tests)
    assert waiting == {**dict.fromkeys(flows, repository.AT_ONCE), theirs: 1}
    assert not found.whole
    # A look that comes to some workflows alone goes on with the others.
    monkeypatch.setattr(repository, "LOOKED_AT", 3)
    seen, after = set[str](), ""
    for _ in range(2):
        found = await database.read(partial(repository.turns, after=after))
        seen |= {each.workflow_id for each in found.tests}
        after = found.after
    assert seen == {*flows, theirs}
    assert after == ""
    platform.services.draining = False
