"""``COLLECTIONS.*`` as steps of workflows, and as tools of a model."""

import asyncio
from typing import Any

import pytest
from tests.runs.platform import Caller, Platform, model

from .stage import collection, judge, rested, rule, verdicts


def action(key: str, name: str, given: Any, *to: str, **more: Any) -> dict[str, Any]:
    service = {"type": "COLLECTIONS", "action": name, "input": given}
    return {"type": "service", "key": key, "service": service, "destinations": list(to), **more}


async def done(caller: Caller, *steps: dict[str, Any], **body: Any) -> dict[str, Any]:
    """Run these steps; return the outputs by their keys."""
    run = await caller.run(await caller.make(*steps), **body)
    assert run["status"] == "COMPLETED", run.get("error")
    return {key: step["output"] for key, step in run["output"].items() if "output" in step}


async def test_a_record_from_its_making_to_its_end(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"), await rule(acme, "b", "false"))
    collection_id = path.rpartition("/")[2]
    tag = (await acme.ok("POST", "/tags", {"name": "t"}))["id"]
    made = {"collection_id": collection_id, "name": "Made", "tags_ids": [tag]}
    ids = {"record_id": "{{make.output.id}}", "collection_id": collection_id}
    output = await done(
        acme,
        action("make", "RECORDS_CREATE", made, "one"),
        action("one", "RULES_UPDATE", ids | {"rule_key": "a", "rule_input": {"text": "x"}}, "all"),
        action("all", "RULES_UPDATE_ALL", ids | {"rules": '{"b": {"text": "y"}}'}, "named"),
        action("named", "RECORDS_UPDATE", ids | {"name": "Named", "tag_ids": None}, "judged"),
        action("judged", "RECORDS_ANALYZE", ids | {"execution_type": "sync"}, "found"),
        action(
            "found", "RECORDS_SEARCH", {"collection_id": collection_id, "tag_ids": [tag]}, "got"
        ),
        action("got", "RECORDS_GET", ids, "gone"),
        action("gone", "RECORDS_DELETE", ids),
    )
    assert output["make"]["source"] == "WORKFLOW"
    assert output["judged"]["status"] == "COMPLETED"
    assert verdicts(output["judged"]) == {"a": "PASSED", "b": "FAILED"}
    assert output["got"]["name"] == "Named"
    assert [one["id"] for one in output["found"]] == [output["make"]["id"]]
    assert output["gone"] == {"record_id": output["make"]["id"], "deleted": True}
    assert await acme.ok("GET", f"{path}/records") == []


async def test_a_step_that_waits_is_cancelled_with_what_it_waits_for(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "wait(a)"))
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    flow = await acme.make(action("judge", "RECORDS_ANALYZE", {"record_id": made["id"]}))
    run = await acme.ok("POST", f"/workflows/{flow}/runs", {"background": True})
    await platform.reached("a")
    ended = await acme.ok("POST", f"/workflows/{flow}/runs/{run['id']}/cancel")
    assert ended["status"] == "CANCELLED"
    record = await acme.ok("GET", f"{path}/records/{made['id']}")
    assert record["status"] == "CANCELLED"
    assert not list(platform.services.live)


async def test_one_that_does_not_wait_goes_on(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "wait(a)"))
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    given = {"record_id": made["id"], "execution_type": "async", "rules_scope": "changed"}
    output = await done(acme, action("judge", "RECORDS_ANALYZE", given))
    assert output["judge"]["status"] in ("QUEUED", "RUNNING")
    await platform.reached("a")
    stopped = await done(acme, action("stop", "RECORDS_CANCEL", {"record_id": made["id"]}))
    assert stopped["stop"]["status"] == "CANCELLED"


async def test_a_model_uses_them_as_tools(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    collection_id = path.rpartition("/")[2]
    replies = [
        {"tool_calls": [{"id": "1", "name": "make", "input": {"name": "By a model"}}]},
        {"text": "made"},
    ]
    await done(
        acme,
        model("think", replies, provider={"tools": ["make"]}),
        action("make", "RECORDS_CREATE", {"collection_id": collection_id, "name": "{{args.name}}"}),
        from_step_key="think",
    )
    (record,) = await acme.ok("GET", f"{path}/records")
    assert (record["name"], record["source"]) == ("By a model", "WORKFLOW")


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("RECORDS_GET", {"record_id": "rec_none"}, "no such thing"),
        ("RECORDS_GET", {}, "record_id is missing"),
        ("RECORDS_CREATE", {"collection_id": "col_none"}, "no such thing"),
        ("RECORDS_SEARCH", {"collection_id": "col_none"}, "no collection"),
        ("RECORDS_SEARCH", {"status": "BAD"}, "status must be one of"),
        ("RULES_UPDATE", {"record_id": "r", "rule_key": "a", "rule_input": "x"}, "an object"),
        ("RECORDS_PRINT", {}, "there are: RECORDS_ANALYZE"),
    ],
)
async def test_what_cannot_be_done_fails_the_step(
    platform: Platform, name: str, given: dict[str, Any], words: str
) -> None:
    flow = await platform.acme.make(action("act", name, given))
    run = await platform.acme.run(flow)
    assert run["status"] == "FAILED"
    assert words in run["error"]


async def test_another_apps_workflow_works_on_the_records_of_its_caller(
    platform: Platform,
) -> None:
    acme, globex = platform.acme, platform.globex
    path = await collection(acme, await rule(acme, "a"))
    mine = await acme.ok("POST", f"{path}/records", {})
    given = {"record_id": mine["id"]}
    flow = await acme.publish(action("act", "RECORDS_GET", given))
    assert (await acme.run(flow))["status"] == "COMPLETED"
    assert (await globex.discover(flow))["status"] == "FAILED"
    searching = await acme.publish(action("act", "RECORDS_SEARCH", {}))
    run = await globex.discover(searching)
    assert "another app's workflow" in run["error"]


async def test_a_rule_that_is_a_workflow_of_steps_may_wait_for_its_record(
    platform: Platform,
) -> None:
    """A rule that analyses its own record is told no; it does not wait for itself."""
    acme = platform.acme
    fields = {"id": {"type": "string", "optional": True}}
    flow = await acme.make(
        {"type": "input", "key": "start", "input": fields, "destinations": ["again"]},
        action("again", "RECORDS_ANALYZE", {"record_id": "{{input.id}}"}),
    )
    path = await collection(acme, {"name": "A", "key": "a", "workflow_id": flow})
    made = await acme.ok("POST", f"{path}/records", {})
    record = f"{path}/records/{made['id']}"
    await acme.ok("PATCH", record, {"rules": {"a": {"id": made["id"]}}, "run": "all"})
    found = await rested(acme, record)
    assert found["status"] == "FAILED"
    assert "being run" in found["rules"]["a"]["error"]


async def test_two_at_once_begin_one_analysis(platform: Platform) -> None:
    acme = platform.acme
    flow = await acme.make(*judge("wait(a)"))
    path = await collection(acme, {"name": "A", "key": "a", "workflow_id": flow})
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    record = f"{path}/records/{made['id']}"
    answers = await asyncio.gather(
        *[acme.ask("POST", f"{record}/run", {"mode": "all"}) for _ in range(3)]
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    await platform.reached("a")
    platform.gate("a").opened.set()
    await rested(acme, record)
    assert len(await acme.ok("GET", "/runs", params={"identifier": made["id"]})) == 1


async def test_where_no_server_holds_the_data_nobody_waits_for_an_analysis(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    monkeypatch.setattr(platform.services, "only_asked", True)
    run = await acme.run(
        await acme.make(action("judge", "RECORDS_ANALYZE", {"record_id": made["id"]}))
    )
    assert run["status"] == "FAILED"
    assert "none holds the data" in run["error"]
    assert (await acme.ok("GET", f"{path}/records/{made['id']}"))["status"] == "DRAFT"
