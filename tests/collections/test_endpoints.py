"""Collections and records over HTTP: shapes, inputs, refusals, and whose they are."""

import asyncio
from typing import Any

import pytest
from tests.contract import validate
from tests.runs.platform import Platform, code

from insula.collections import workflows
from insula.files import store as storing
from insula.files.store import TEMPORARY_MS
from insula.kit.clock import now_ms

from .stage import collection, judge, rested, rule, verdicts


async def test_answers_have_the_shapes_of_the_contract(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"), await rule(acme, "b"))
    await acme.ok("POST", f"{path}/triggers", {"config": {"type": "PERSONA"}})
    validate(await acme.ok("GET", path), "ExtendedCollectionSchema")
    for one in await acme.ok("GET", "/collections"):
        validate(one, "CollectionSchema")
    body = {"name": "R", "rules": {"a": {"text": "x"}}}
    made = await acme.ok("POST", f"{path}/records", body)
    validate(made, "ExtendedRecordSchema")
    record = f"{path}/records/{made['id']}"
    told = await acme.ok("GET", f"{record}/status")
    validate(told, "RecordStatusSchema")
    (error,) = told["errors"]
    assert (error["key"], error["errors"][0]["path"]) == ("b", ["text"])
    assert (error["errors"][0]["expected"], error["errors"][0]["received"]) == ("string", "nothing")
    await acme.ok("PATCH", record, {"rules": {"b": {"text": "x"}}, "run": "all"})
    await rested(acme, record)
    for query in ({}, {"verbose": "all"}):
        validate(await acme.ok("GET", record, params=query), "ExtendedRecordSchema")
        for one in await acme.ok("GET", f"{path}/records", params=query):
            validate(one, "RecordSchema")
    for verb in ("cancel", "reset", "update-rules"):
        validate(await acme.ok("POST", f"{record}/{verb}"), "RecordSchema")
    validate(await acme.ok("POST", f"{record}/run", {"mode": "all"}), "RecordSchema")


async def test_what_cannot_be_run_is_told_with_every_field(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"), await rule(acme, "b"))
    body = {"rules": {"a": {"text": 7}}, "run": "all"}
    answer = await acme.ask("POST", f"{path}/records", body)
    assert answer.status_code == 400
    errors = [each["path"] for each in answer.json()["errors"]]
    assert errors == [["rules", "a", "text"], ["rules", "b", "text"]]
    assert await acme.ok("GET", f"{path}/records") == []
    answer = await acme.ask("POST", f"{path}/records", {"rules": {"c": {}}})
    assert answer.json()["errors"][0]["path"] == ["rules", "c"]


async def test_defaults_mappings_and_replaced_inputs(platform: Platform) -> None:
    acme = platform.acme
    rules = [
        await rule(acme, "a", workflow_input_default={"note": "n"}),
        await rule(acme, "b"),
    ]
    mapping = {"source_path": "a:text", "destination_paths": ["b:text", "b:deep.inner"]}
    path = await collection(acme, *rules, mappings=[mapping])
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    inputs = {key: each["input"] for key, each in made["rules"].items()}
    assert inputs["a"] == {"note": "n", "text": "x"}
    assert inputs["b"] == {"text": "x", "deep": {"inner": "x"}}
    record = f"{path}/records/{made['id']}"
    changed = await acme.ok("PATCH", record, {"rules": {"a": {"text": "y", "note": "m"}}})
    assert changed["rules"]["a"]["input"] == {"text": "y", "note": "m"}
    assert changed["rules"]["b"]["input"]["text"] == "y"
    back = await acme.ok("PATCH", record, {"rules": {"a": None}})
    assert back["rules"]["a"]["input"] == {"note": "n"}
    assert await acme.ok("GET", f"{record}/status") == {
        "status": "DRAFT",
        "errors": [
            {
                "key": "a",
                "message": "1 field of the input cannot be used",
                "errors": [
                    {
                        "code": "required",
                        "expected": "string",
                        "received": "nothing",
                        "path": ["text"],
                        "message": "input.text is missing; give a value of type string",
                    }
                ],
            }
        ],
    }


async def test_a_record_keeps_its_rules_until_it_is_told(platform: Platform) -> None:
    acme = platform.acme
    a, b = await rule(acme, "a"), await rule(acme, "b")
    path = await collection(acme, a)
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}, "run": "all"})
    record = f"{path}/records/{made['id']}"
    before = await rested(acme, record)
    await acme.ok("PATCH", f"{path}/config", {"rules": [a | {"on_success": "WARN"}, b]})
    assert list((await acme.ok("GET", record))["rules"]) == ["a"]
    after = await acme.ok("POST", f"{record}/update-rules")
    assert verdicts(after) == {"a": "PASSED", "b": "DRAFT"}
    assert after["status"] == "DRAFT"
    assert after["rules"]["a"]["run"] == before["rules"]["a"]["run"]
    assert after["config"]["id"] != before["config"]["id"]
    assert len(await platform.rows("SELECT id FROM collection_configs")) == 1
    await acme.ok("PATCH", record, {"rules": {"b": {"text": "x"}}, "run": "changed"})
    # The rule is another now: what its success means has changed.
    assert verdicts(await rested(acme, record)) == {"a": "WARN", "b": "PASSED"}


async def test_rules_are_checked_when_they_are_saved(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/collections", {"name": "C"})
    path = f"/collections/{made['id']}"
    good = await rule(acme, "a")
    draft = await acme.ok("POST", "/workflows", {"name": "D", "steps": [code("x", "return 1")]})
    for rules, where in (
        ([good, good], ["rules", "1", "key"]),
        ([good | {"workflow_id": "work_none"}], ["rules", "0", "workflow_id"]),
        ([good | {"workflow_id": draft["id"]}], ["rules", "0", "workflow_id"]),
        ([good | {"step_key": "nowhere"}], ["rules", "0", "step_key"]),
        ([good | {"on_fail": "MAYBE"}], ["rules", "0", "on_fail"]),
        ([good | {"key": "a b"}], ["rules", "0", "key"]),
    ):
        answer = await acme.ask("PATCH", f"{path}/config", {"rules": rules})
        assert answer.status_code == 400, rules
        assert where in [each["path"] for each in answer.json()["errors"]], answer.text
    mapping = {"source_path": "a:text", "destination_paths": ["b:text"]}
    body = {"rules": [good], "mappings": [mapping]}
    answer = await acme.ask("PATCH", f"{path}/config", body)
    assert answer.json()["errors"][0]["path"] == ["mappings", "0", "destination_paths", "0"]
    named = {name: value for name, value in good.items() if name != "key"}
    kept = await acme.ok("PATCH", f"{path}/config", {"rules": [named, named]})
    assert [each["key"] for each in kept["config"]["rules"]] == ["Rule_a", "Rule_a_2"]
    copy = await acme.ok("POST", "/collections", {"name": "D", "from_collection_id": made["id"]})
    assert copy["config"]["rules"] == kept["config"]["rules"]
    assert copy["config"]["id"] != kept["config"]["id"]


async def test_files_in_forms_belong_to_the_record(platform: Platform) -> None:
    acme = platform.acme
    fields = {"doc": {"type": "file"}, "n": {"type": "number"}}
    flow = await acme.make(
        {"type": "input", "key": "start", "input": fields, "destinations": ["d"]},
        code("d", "return true"),
    )
    path = await collection(acme, {"name": "A", "key": "a", "workflow_id": flow})
    parts = {
        "name": (None, "Case"),
        "rules[a][n]": (None, "7"),
        "rules[a][doc]": ("a.txt", b"words", "text/plain"),
        "run": (None, "all"),
    }
    made = await acme.ok("POST", f"{path}/records", files=parts)
    given = made["rules"]["a"]["input"]
    assert given["n"] == 7
    record = f"{path}/records/{made['id']}"
    found = await rested(acme, record, verbose="all")
    assert found["status"] == "COMPLETED"
    file_id = given["doc"]["id"]
    assert found["rules"]["a"]["run"]["input"]["doc"]["id"] == file_id
    assert (await acme.ask("GET", f"/files/{file_id}")).status_code == 200
    await acme.ok("DELETE", record)
    assert (await acme.ask("GET", f"/files/{file_id}")).status_code == 404
    # A record that is refused leaves no file behind.
    answer = await acme.ask("POST", f"{path}/records", files={**parts, "rules[a][n]": (None, "x")})
    assert answer.status_code == 400
    assert await platform.rows("SELECT id FROM files") == []


async def test_a_change_that_does_not_come_about_leaves_no_file(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    fields = {"doc": {"type": "file"}, "must": {"type": "string"}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["d"]}
    flow = await acme.make(start, code("d", "return true"))
    path = await collection(acme, {"name": "A", "key": "a", "workflow_id": flow})
    made = await acme.ok("POST", f"{path}/records", {})
    record = f"{path}/records/{made['id']}"
    held = await acme.ok("POST", "/files", {"file": {"data": "eA==", "name": "held.txt"}})
    sent = {"rules": {"a": {"doc": {"data": "eA==", "name": "a.txt"}}}}
    assert (await acme.ask("PATCH", record, {**sent, "run": "all"})).status_code == 400
    given = {"rules": {"a": {"doc": held["id"]}}, "run": "all"}
    assert (await acme.ask("PATCH", record, given)).status_code == 400
    assert await platform.rows("SELECT id FROM files") == [(held["id"],)]
    # Nor does one that comes when the record is gone.
    reached, go_on = asyncio.Event(), asyncio.Event()
    resolve = workflows.resolve_file

    async def slow(*args: Any) -> dict[str, Any]:
        reached.set()
        await go_on.wait()
        return await resolve(*args)

    monkeypatch.setattr(workflows, "resolve_file", slow)
    late = asyncio.create_task(acme.ask("PATCH", record, sent))
    await reached.wait()
    await acme.ok("DELETE", record)
    go_on.set()
    assert (await late).status_code == 404
    assert await platform.rows("SELECT id FROM files") == [(held["id"],)]


async def test_a_record_that_is_there_holds_its_files(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = platform.acme
    fields = {"doc": {"type": "file"}}
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["d"]}
    flow = await acme.make(start, code("d", "return true"))
    path = await collection(acme, {"name": "A", "key": "a", "workflow_id": flow})
    sent = {"rules": {"a": {"doc": {"data": "eA==", "name": "a.txt"}}}}
    await acme.ok("POST", f"{path}/records", sent)
    later = now_ms() + TEMPORARY_MS
    monkeypatch.setattr(storing, "now_ms", lambda: later)
    await platform.services.files.sweep()
    assert await platform.rows("SELECT expires_at FROM files") == [(None,)]


async def test_entities_make_records(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"), await rule(acme, "b"))
    mappings = [
        {"type": "property", "entity_path": "loan.id", "input_path": ["a:text", "b:text"]},
        {"type": "property", "entity_path": "note", "input_path": ["a", "note"]},
    ]
    config = {"type": "ENCOMPASS", "mappings": mappings, "pull_on_folders": ["x"]}
    trigger = await acme.ok("POST", f"{path}/triggers", {"name": "T", "config": config})
    validate(trigger, "TriggerSchema")
    entity = {
        "trigger_id": trigger["id"],
        "entity_id": "e1",
        "data": {"loan": {"id": "L1"}, "note": "n"},
    }
    made = await acme.ok("POST", f"{path}/records", {"entity": entity})
    validate(made, "ExtendedRecordSchema")
    assert made["source"] == "TRIGGER"
    assert made["rules"]["a"]["input"] == {"text": "L1", "note": "n"}
    assert made["entity"]["data"] == entity["data"]
    assert "data" not in (await acme.ok("GET", f"{path}/records"))[0]["entity"]
    one = f"{path}/triggers/{trigger['id']}"
    assert (await acme.ok("PATCH", one, {"enabled": False}))["enabled"] is False
    assert (await acme.ask("POST", f"{path}/records", {"entity": entity})).status_code == 409
    assert await acme.ok("DELETE", one) is None
    assert (await acme.ask("POST", f"{path}/records", {"entity": entity})).status_code == 400


async def test_rules_may_run_what_the_catalogue_has(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    flow = await acme.publish(*judge("true"), open=False)
    path = await collection(globex, {"name": "A", "key": "a", "workflow_id": flow})
    made = await globex.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}, "run": "all"})
    found = await rested(globex, f"{path}/records/{made['id']}", verbose="all")
    validate(found, "ExtendedRecordSchema")
    assert verdicts(found) == {"a": "PASSED"}
    (shown,) = found["config"]["rules"]
    assert shown["workflow"]["steps"] == shown["workflow_version"]["steps"] == []
    await acme.ok("PATCH", f"/workflows/{flow}", {"discoverable": False})
    gone = await globex.ok("GET", f"{path}/records/{made['id']}")
    validate(gone, "ExtendedRecordSchema")
    status = await globex.ok("GET", f"{path}/records/{made['id']}/status")
    assert status["errors"][0]["key"] == "a"


async def test_versions_that_an_app_may_not_run_are_not_shown_in_its_rules(
    platform: Platform,
) -> None:
    acme, globex = platform.acme, platform.globex
    flow = await acme.publish(*judge("true"))
    await acme.ok("PATCH", f"/workflows/{flow}", {"steps": judge("!false")})
    await acme.ok("POST", f"/workflows/{flow}/versions", {})
    pinned = {"workflow_version_id": 1, "workflow_use_latest": False}
    rules = [{"name": key, "key": key, "workflow_id": flow} for key in ("pinned", "latest")]
    path = await collection(globex, rules[0] | pinned, rules[1])
    made = await globex.ok("POST", f"{path}/records", {})

    async def shown() -> list[tuple[int, int]]:
        seen = []
        for where in (path, f"{path}/records/{made['id']}"):
            found = await globex.ok("GET", where)
            versions = [each["workflow_version"] for each in found["config"]["rules"]]
            seen.append([(one["version"], len(one["steps"])) for one in versions])
        assert seen[0] == seen[1]
        return seen[0]

    assert await shown() == [(1, 2), (2, 2)]
    await acme.ok("PATCH", f"/workflows/{flow}/versions/1", {"withdrawn": True})
    assert await shown() == [(0, 0), (2, 2)]
    await acme.ok("PUT", f"/workflows/{flow}/callers/{globex.id}")
    assert await shown() == [(0, 0), (0, 0)]


async def test_other_apps_find_nothing(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    path = await collection(acme, await rule(acme, "a"))
    made = await acme.ok("POST", f"{path}/records", {})
    record = f"{path}/records/{made['id']}"
    other = await collection(acme)
    asked: list[tuple[str, str, Any]] = [
        ("GET", path, None),
        ("PATCH", path, {"name": "x"}),
        ("DELETE", path, None),
        ("PATCH", f"{path}/config", {"rules": []}),
        ("GET", f"{path}/records", None),
        ("POST", f"{path}/records", {}),
        ("GET", record, None),
        ("PATCH", record, {"name": "x"}),
        ("DELETE", record, None),
        ("GET", f"{record}/status", None),
        ("POST", f"{record}/run", {"mode": "all"}),
        ("POST", f"{record}/cancel", None),
        ("POST", f"{record}/reset", None),
        ("POST", f"{record}/update-rules", None),
        ("GET", f"{record}/download", None),
    ]
    for method, where, body in asked:
        assert (await globex.ask(method, where, body)).status_code == 404, (method, where)
    # Nor is a record found below another collection of its own app.
    assert (await acme.ask("GET", f"{other}/records/{made['id']}")).status_code == 404
    copied = await globex.ask(
        "POST", "/collections", {"name": "C", "from_collection_id": path.rpartition("/")[2]}
    )
    assert copied.status_code == 400


async def test_the_same_key_makes_one_record(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    headers = {"idempotency-key": "one"}
    body = {"rules": {"a": {"text": "x"}}, "run": "all"}
    first = await acme.ok("POST", f"{path}/records", body, headers=headers)
    await rested(acme, f"{path}/records/{first['id']}")
    again = await acme.ok("POST", f"{path}/records", body, headers=headers)
    assert again["id"] == first["id"]
    assert len(await acme.ok("GET", "/runs")) == 1


@pytest.mark.parametrize(("method", "end"), [("POST", "/run"), ("PATCH", "")])
async def test_the_same_key_begins_one_analysis(platform: Platform, method: str, end: str) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    one = f"{path}/records/{made['id']}"
    body = {"mode": "all"} if method == "POST" else {"run": "all"}
    for _ in range(2):
        shown = await acme.ok(method, one + end, body, headers={"idempotency-key": "one"})
        assert shown["id"] == made["id"]
        await rested(acme, one)
    assert len(await acme.ok("GET", "/runs")) == 1
    other = {"mode": "changed"} if method == "POST" else {"run": "changed"}
    answer = await acme.ask(method, one + end, other, headers={"idempotency-key": "one"})
    assert answer.status_code == 422
    await acme.ok(method, one + end, body, headers={"idempotency-key": "two"})
    await rested(acme, one)
    assert len(await acme.ok("GET", "/runs")) == 2


async def test_the_same_key_adds_one_trigger(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    body = {"name": "x", "config": {"type": "PERSONA", "mappings": []}}
    headers = {"idempotency-key": "one"}
    first = await acme.ok("POST", f"{path}/triggers", body, headers=headers)
    assert await acme.ok("POST", f"{path}/triggers", body, headers=headers) == first
    assert len((await acme.ok("GET", path))["triggers"]) == 1
    await acme.ok("DELETE", f"{path}/triggers/{first['id']}")
    assert (await acme.ask("POST", f"{path}/triggers", body, headers=headers)).status_code == 404


async def test_lists_go_on_by_cursor_and_count(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    made = []
    for number in range(5):
        body = {"name": f"Case {number}"}
        made.append((await acme.ok("POST", f"{path}/records", body))["id"])
    seen, following = [], None
    while True:
        query = {"take": 2} | ({"next": following} if following else {})
        answer = await acme.ask("GET", f"{path}/records", params=query)
        assert answer.headers["pagination-count"] == "5"
        seen += [each["id"] for each in answer.json()]
        following = answer.headers.get("pagination-next")
        if following is None:
            break
    assert seen == made[::-1]
    found = await acme.ask("GET", f"{path}/records", params={"search": "case 3"})
    assert ([one["id"] for one in found.json()], found.headers["pagination-count"]) == (
        [made[3]],
        "1",
    )
    drafts = await acme.ask("GET", f"{path}/records", params={"status": "DRAFT"})
    assert drafts.headers["pagination-count"] == "5"
    none = await acme.ask("GET", f"{path}/records", params={"status": "COMPLETED"})
    assert (none.json(), none.headers["pagination-count"]) == ([], "0")
    assert (await acme.ok("GET", path))["records_count"] == 5


async def test_update_rules_brings_the_new_default(platform: Platform) -> None:
    acme = platform.acme
    given = await rule(acme, "a", workflow_input_default={"note": "old", "text": "t", "gone": 1})
    path = await collection(acme, given)
    record = (
        f"{path}/records/"
        + (
            await acme.ok(
                "POST", f"{path}/records", {"rules": {"a": {"text": "mine"}}, "run": "all"}
            )
        )["id"]
    )
    await rested(acme, record)
    new = {**given, "workflow_input_default": {"note": "new", "text": "other"}}
    await acme.ok("PATCH", f"{path}/config", {"rules": [new], "mappings": []})
    after = await acme.ok("POST", f"{record}/update-rules")
    assert after["rules"]["a"]["input"] == {"note": "new", "text": "mine"}
    assert after["status"] == "COMPLETED"
    before = after["rules"]["a"]["run"]["id"]
    await acme.ok("POST", f"{record}/run", {"mode": "changed"})
    ran = await rested(acme, record)
    assert ran["rules"]["a"]["run"]["id"] != before
    # A rule whose default stays is left as it is.
    await acme.ok("PATCH", f"{path}/config", {"rules": [{**new, "name": "n"}], "mappings": []})
    again = await acme.ok("POST", f"{record}/update-rules")
    assert again["rules"]["a"]["input"] == {"note": "new", "text": "mine"}


async def test_update_rules_brings_new_files_and_completed_defaults(platform: Platform) -> None:
    acme = platform.acme
    inner = {"n": {"type": "number"}, "unit": {"type": "string", "default": "kg"}}
    fields = {
        "by_id": {"type": "file"},
        "by_address": {"type": "file"},
        "weight": {"type": "object", "fields": inner},
    }
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["d"]}
    flow = await acme.make(start, code("d", "return true"))
    old, new, mine = [
        await acme.ok("POST", "/files", {"file": {"data": "eA==", "name": f"{n}.txt"}})
        for n in range(3)
    ]
    given = {"name": "A", "key": "a", "workflow_id": flow}
    before = {"by_id": old["id"], "by_address": old["file_url"], "weight": {"n": 1}}
    path = await collection(acme, {**given, "workflow_input_default": before})
    theirs = {"rules": {"a": {"by_id": mine["id"]}}}
    bodies = ({}, theirs)
    ids = [(await acme.ok("POST", f"{path}/records", body))["id"] for body in bodies]
    after = {"by_id": new["id"], "by_address": new["file_url"], "weight": {"n": 2}}
    rules = [{**given, "workflow_input_default": after}]
    await acme.ok("PATCH", f"{path}/config", {"rules": rules})
    for record_id, by_id in zip(ids, (new, mine), strict=True):
        record = await acme.ok("POST", f"{path}/records/{record_id}/update-rules")
        value = record["rules"]["a"]["input"]
        assert (value["by_id"]["id"], value["by_address"]["id"]) == (by_id["id"], new["id"])
        assert value["weight"] == {"n": 2, "unit": "kg"}


async def test_what_the_workflow_gives_follows_its_version(platform: Platform) -> None:
    acme = platform.acme
    fields = {
        "text": {"type": "string"},
        "limit": {"type": "number", "config": True},
        "unit": {"type": "string", "default": "kg"},
    }
    start = {"type": "input", "key": "start", "input": fields, "destinations": ["d"]}
    flow = await acme.make(start, code("d", "return true"), input_default={"limit": 10})
    path = await collection(acme, {"name": "A", "key": "a", "workflow_id": flow})
    body = {"rules": {"a": {"text": "t"}}, "run": "all"}
    made = await acme.ok("POST", f"{path}/records", body)
    record = f"{path}/records/{made['id']}"
    found = await rested(acme, record, verbose="all")
    assert found["rules"]["a"]["input"] == {"text": "t"}
    assert found["rules"]["a"]["run"]["input"] == {"text": "t", "limit": 10, "unit": "kg"}
    fields["unit"]["default"] = "lb"
    changed = {"steps": [start, code("d", "return true")], "input_default": {"limit": 20}}
    await acme.ok("PATCH", f"/workflows/{flow}", changed)
    await acme.ok("POST", f"/workflows/{flow}/versions", {})
    await acme.ok("POST", f"{record}/run", {"mode": "changed"})
    found = await rested(acme, record, verbose="all")
    assert found["rules"]["a"]["run"]["input"] == {"text": "t", "limit": 20, "unit": "lb"}


async def test_a_reset_forgets_a_cancel(platform: Platform) -> None:
    acme = platform.acme
    path = await collection(acme, await rule(acme, "a"))
    made = await acme.ok("POST", f"{path}/records", {"rules": {"a": {"text": "x"}}})
    record = f"{path}/records/{made['id']}"
    await platform.change("UPDATE records SET cancel_requested_at = 1, cancel_requested_by = 'k'")
    assert "cancel_requested_at" in await acme.ok("GET", record)
    assert "cancel_requested_at" not in await acme.ok("POST", f"{record}/reset")
    row = await platform.rows("SELECT cancel_requested_at, cancel_requested_by FROM records")
    assert tuple(row[0]) == (None, None)
