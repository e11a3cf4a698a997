"""Records analysed: order, verdicts, what runs again, and what happens when it is stopped."""

import asyncio
from functools import partial
from typing import Any

import pytest
from tests.runs.platform import Platform, child, code

from insula.collections.cancel import stop
from insula.collections.record_repository import needing
from insula.collections.services import RecordServices
from insula.collections.workflows import canonical
from insula.kit.clock import now_ms
from insula.runs.erasing import erase_due

from .stage import collection, judge, rested, rule, verdicts


def given(*keys: str) -> dict[str, Any]:
    return {key: {"text": "x"} for key in keys}


async def test_each_rule_has_a_run_and_a_verdict(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    path = await collection(
        acme,
        await rule(acme, "good", '{"passed": true, "why": "it is"}'),
        await rule(acme, "bad", '{"passed": false}'),
        await rule(acme, "odd", "false", on_fail="WARN"),
        await rule(acme, "turned", "true", on_success="FAIL"),
        await rule(acme, "off", "true", disabled=True),
    )
    body = {"name": "Case 1", "rules": given("good", "bad", "odd", "turned"), "run": "all"}
    woken = list[tuple[RecordServices, str]]()
    with monkeypatch.context() as patch:  # nobody begins it before it is answered
        patch.setattr(RecordServices, "wake", lambda *given: woken.append(given))
        made = await acme.ok("POST", f"{path}/records", body)
    assert made["status"] == "QUEUED"
    for services, record_id in woken:
        services.wake(record_id)
    found = await rested(acme, f"{path}/records/{made['id']}", verbose="all")
    assert found["status"] == "COMPLETED"
    assert verdicts(found) == {
        "good": "PASSED",
        "bad": "FAILED",
        "odd": "WARN",
        "turned": "FAILED",
        "off": "DRAFT",
    }
    counts = [found[f"rules_{name}count"] for name in ("", "pass_", "fail_", "warn_")]
    assert counts == [4, 1, 2, 1]
    good = found["rules"]["good"]
    assert good["result"] == {"passed": True, "why": "it is"}
    assert good["run"]["origin"] == "RECORD"
    assert good["run"]["record_id"] == made["id"]
    assert good["run"]["output"]["decide"]["status"] == "COMPLETED"
    assert good["run"]["input"] == {"text": "x"}
    assert set(found["usage"]["rules"]) == {"good", "bad", "odd", "turned"}
    runs = await acme.ok("GET", "/runs", params={"identifier": made["id"]})
    assert {run["origin"] for run in runs} == {"RECORD"}
    assert len(runs) == 4


async def test_before_all_and_after_all(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(
        acme,
        await rule(acme, "last", "wait(last)", execution_order="after-all"),
        await rule(acme, "middle", "wait(middle)"),
        await rule(acme, "first", "wait(first)", execution_order="before-all"),
    )
    body = {"rules": given("last", "middle", "first"), "run": "all"}
    made = await acme.ok("POST", f"{path}/records", body)
    one = f"{path}/records/{made['id']}"
    for passed, (key, running) in enumerate(
        (
            ("first", ["first"]),
            ("middle", ["middle"]),
            ("last", ["last"]),
        )
    ):
        await platform.reached(key)
        found = await acme.ok("GET", one)
        assert [k for k, s in verdicts(found).items() if s == "RUNNING"] == running
        assert found["status"] == "RUNNING"
        assert found["rules"][key]["run"]["status"] == "RUNNING"
        assert (found["rules_count"], found["rules_pass_count"]) == (3, passed)
        platform.gate(key).opened.set()
    assert (await rested(acme, one))["status"] == "COMPLETED"


async def test_changed_runs_what_differs(platform: Platform) -> None:
    acme = platform.acme
    rules = [await rule(acme, key) for key in ("a", "b", "c")]
    path = await collection(acme, *rules)
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a", "b", "c"), "run": "all"})
    one = f"{path}/records/{made['id']}"
    before = await rested(acme, one)
    # Nothing differs: nothing runs, and the verdicts stay.
    await acme.ok("POST", f"{one}/run", {"mode": "changed"})
    same = await rested(acme, one)
    assert same["rules"] == before["rules"]
    await acme.ok("PATCH", one, {"rules": {"b": {"text": "other"}}})
    flow = rules[2]["workflow_id"]
    workflow = await acme.ok("GET", f"/workflows/{flow}")
    steps = [
        step | {"code": "return false"} if "code" in step else step for step in workflow["steps"]
    ]
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": steps})
    await acme.ok("POST", f"/workflows/{flow}/versions", {})
    await acme.ok("POST", f"{one}/run", {"mode": "changed"})
    after = await rested(acme, one)
    assert verdicts(after) == {"a": "PASSED", "b": "PASSED", "c": "FAILED"}

    def runs(record: dict[str, Any]) -> dict[str, str]:
        return {key: each["run"]["id"] for key, each in record["rules"].items()}

    assert [key for key in "abc" if runs(after)[key] != runs(before)[key]] == ["b", "c"]


async def test_the_same_sent_again_is_no_change(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    fields = {"doc": {"type": "file"}, "data": {"type": "object", "optional": True}}
    flow = await acme.make(
        {"type": "input", "key": "start", "input": fields, "destinations": ["decide"]},
        code("decide", "return true"),
    )
    path = await collection(acme, {"name": "Rule a", "key": "a", "workflow_id": flow})
    files = [
        await acme.ok("POST", "/files", {"file": {"data": "eA==", "name": f"{n}.txt"}})
        for n in range(2)
    ]
    sent = {"doc": files[0]["id"], "data": {"n": 1, "m": {"a": 1, "b": 2}}}
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": sent}, "run": "all"})
    one = f"{path}/records/{made['id']}"

    async def ran(**changed: Any) -> str:
        await acme.ok("PATCH", one, {"rules": {"a": sent | changed}, "run": "changed"})
        record = await rested(acme, one)
        return str(record["rules"]["a"]["run"]["id"])

    first = (await rested(acme, one))["rules"]["a"]["run"]["id"]
    # An hour later its address is another.
    later = now_ms() + 3_600_000
    monkeypatch.setattr("insula.files.urls.now_ms", lambda: later)
    assert await ran() == first
    assert await ran(data={"m": {"b": 2, "a": 1}, "n": 1}) == first
    second = await ran(data={"m": {"b": 2, "a": 1}, "n": 2})
    assert second != first
    assert await ran(doc=files[1]["id"]) not in (first, second)


def test_what_is_compared_may_be_as_deep_as_json() -> None:
    deep = b'{"a":' * 900 + b'{"c":1,"b":2}' + b"}" * 900
    assert canonical(deep) == deep.replace(b'"c":1,"b":2', b'"b":2,"c":1')


async def test_cancel_answers_when_all_has_stopped_and_changed_goes_on(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(
        acme,
        await rule(acme, "done", execution_order="before-all"),
        await rule(acme, "runs", "wait(runs)"),
        await rule(acme, "late", execution_order="after-all"),
    )
    body = {"rules": given("done", "runs", "late"), "run": "all"}
    made = await acme.ok("POST", f"{path}/records", body)
    one = f"{path}/records/{made['id']}"
    await platform.reached("runs")
    answers = await asyncio.gather(*[acme.ok("POST", f"{one}/cancel") for _ in range(2)])
    for answer in answers:
        assert answer["status"] == "CANCELLED"
        assert verdicts(answer) == {"done": "PASSED", "runs": "DRAFT", "late": "DRAFT"}
        assert "cancelled" in answer["rules"]["runs"]["error"]
        assert "cancelled" in answer["rules"]["late"]["error"]
        assert answer["rules"]["runs"]["run"]["status"] == "CANCELLED"
    assert not list(platform.services.live)
    assert (await acme.ok("POST", f"{one}/cancel"))["status"] == "CANCELLED"
    kept = answers[0]["rules"]["done"]["run"]["id"]
    platform.gate("runs").opened.set()
    await acme.ok("POST", f"{one}/run", {"mode": "changed"})
    after = await rested(acme, one)
    assert after["status"] == "COMPLETED"
    assert set(verdicts(after).values()) == {"PASSED"}
    assert "error" not in after["rules"]["late"]
    assert after["rules"]["done"]["run"]["id"] == kept


async def test_a_cancel_stops_only_the_analysis_that_it_was_asked_for(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "wait(a)"))
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
    one = f"{path}/records/{made['id']}"
    await platform.reached("a")
    await platform.change("UPDATE records SET cancel_requested_at = 1, cancel_requested_by = 'key'")
    [left] = await platform.read(partial(needing, after=""))
    # Its own caller ends it, and begins anew, before the sweep that found it comes to it.
    assert (await acme.ok("POST", f"{one}/cancel"))["status"] == "CANCELLED"
    platform.gate("a").reached.clear()
    await acme.ok("POST", f"{one}/run", {"mode": "all"})
    await platform.reached("a")
    await stop(RecordServices(platform.services), *left)
    assert (await acme.ok("GET", one))["status"] == "RUNNING"
    platform.gate("a").opened.set()
    assert (await rested(acme, one))["status"] == "COMPLETED"


async def test_what_does_not_stop_holds_up_no_other_cancel(platform: Platform) -> None:
    acme = platform.acme
    platform.services.stop_within = 60
    made = []
    for script in ("stubborn(a)", "wait(b)"):
        path = await collection(acme, await rule(acme, "a", script))
        record = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
        made.append(f"{path}/records/{record['id']}")
    await platform.reached("a")
    await platform.reached("b")
    # As they stand where the node of who asked has died.
    await platform.change("UPDATE records SET cancel_requested_at = 1, cancel_requested_by = 'key'")
    try:
        assert (await rested(acme, made[1]))["status"] == "CANCELLED"
        assert (await acme.ok("GET", made[0]))["status"] == "RUNNING"
    finally:
        platform.gate("a").opened.set()
    assert (await rested(acme, made[0]))["status"] == "CANCELLED"


async def test_a_run_that_fails_fails_the_record(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "fail(oh)"), await rule(acme, "b"))
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a", "b"), "run": "all"})
    found = await rested(acme, f"{path}/records/{made['id']}")
    assert found["status"] == "FAILED"
    assert verdicts(found) == {"a": "FAILED", "b": "PASSED"}
    assert "It failed: oh" in found["rules"]["a"]["error"]


async def test_a_record_stands_as_the_rules_do_that_stay(platform: Platform) -> None:
    """What failed, was cancelled, or was not run yet is gone with its rule."""
    acme = platform.acme
    good, bad = await rule(acme, "good"), await rule(acme, "bad", "fail(oh)")
    slow = await rule(acme, "slow", "wait(slow)", execution_order="after-all")
    path = await collection(acme, good, bad)
    body = {"rules": given("good", "bad"), "run": "all"}
    one = f"{path}/records/{(await acme.ok('POST', f'{path}/records', body))['id']}"
    assert (await rested(acme, one))["status"] == "FAILED"

    async def on(*rules: dict[str, Any]) -> dict[str, Any]:
        await acme.ok("PATCH", f"{path}/config", {"rules": rules})
        stands: dict[str, Any] = await acme.ok("POST", f"{one}/update-rules")
        return stands

    assert (await on(good))["status"] == "COMPLETED"
    assert (await on(good, slow))["status"] == "DRAFT"
    await acme.ok("PATCH", one, {"rules": given("slow"), "run": "changed"})
    await platform.reached("slow")
    stopped = await acme.ok("POST", f"{one}/cancel")
    assert (stopped["status"], "cancel_requested_at" in stopped) == ("CANCELLED", True)
    stands = await on(good)
    assert (stands["status"], "cancel_requested_at" in stands) == ("COMPLETED", False)
    listed = await acme.ask("GET", f"{path}/records", params={"status": "COMPLETED"})
    assert listed.headers["pagination-count"] == "1"


async def test_what_is_live_is_not_changed(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "wait(a)"))
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
    one = f"{path}/records/{made['id']}"
    await platform.reached("a")
    for verb, body in (("run", {"mode": "all"}), ("reset", None), ("update-rules", None)):
        assert (await acme.ask("POST", f"{one}/{verb}", body)).status_code == 409, verb
    assert (await acme.ask("PATCH", one, {"rules": {"a": None}})).status_code == 409
    assert (await acme.ok("PATCH", one, {"name": "New"}))["name"] == "New"
    platform.gate("a").opened.set()
    await rested(acme, one)
    cleared = await acme.ok("POST", f"{one}/reset")
    assert cleared["status"] == "DRAFT"
    assert cleared["rules"]["a"]["run"] is None
    assert cleared["rules"]["a"]["input"] == {"text": "x"}
    assert cleared["rules_pass_count"] == 0
    assert cleared["usage"] == {"total": 0, "rules": {}}


async def test_a_result_is_kept_where_the_run_keeps_nothing(platform: Platform) -> None:
    acme = platform.acme
    one = await rule(acme, "a", '{"passed": true}')
    await acme.ok("PATCH", f"/workflows/{one['workflow_id']}", {"retention": 0})
    path = await collection(acme, one)
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
    found = await rested(acme, f"{path}/records/{made['id']}", verbose="all")
    assert found["rules"]["a"]["result"] == {"passed": True}
    assert found["rules"]["a"]["run"]["output"] == {}


@pytest.mark.parametrize("what", ["record", "collection"])
async def test_deleting_stops_what_runs_first(platform: Platform, what: str) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a", "wait(a)"))
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
    one = f"{path}/records/{made['id']}"
    await platform.reached("a")
    assert await acme.ok("DELETE", one if what == "record" else path) is None
    assert not list(platform.services.live)
    assert (await acme.ask("GET", one)).status_code == 404
    assert await platform.rows("SELECT * FROM records") == []
    assert await platform.rows("SELECT * FROM record_rules") == []
    left = await platform.rows("SELECT * FROM collection_configs")
    assert len(left) == (1 if what == "record" else 0)
    run = (await acme.ok("GET", "/runs", params={"identifier": made["id"]}))[0]
    assert run["status"] == "CANCELLED"


@pytest.mark.parametrize("what", ["record", "collection"])
async def test_deleting_erases_what_ran_below_the_rules(platform: Platform, what: str) -> None:
    acme = platform.acme
    leaf = await acme.make(*judge("true"), retention=-1)
    handed = {"text": "{{input.text}}"}
    start = {**judge("true")[0], "destinations": ["down"]}
    middle = await acme.make(start, child("down", leaf, input=handed))
    top = await acme.make(
        start, child("down", middle, "decide", input=handed), code("decide", "return true")
    )
    path = await collection(acme, {"name": "Rule a", "key": "a", "workflow_id": top})
    made = await acme.ok("POST", f"{path}/records", {"rules": given("a"), "run": "all"})
    await rested(acme, f"{path}/records/{made['id']}")
    await acme.ok("DELETE", f"{path}/records/{made['id']}" if what == "record" else path)
    await erase_due(platform.services)
    for workflow_id in (top, middle, leaf):
        [run] = await acme.ok("GET", f"/workflows/{workflow_id}/runs")
        shown = await acme.ok("GET", f"/workflows/{workflow_id}/runs/{run['id']}")
        assert (shown["input"], shown["output"]) == (None, {})
