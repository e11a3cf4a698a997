"""Byte for byte what clients get of collections, records, their verdicts and their problems."""

from tests.collections.stage import judge, rested
from tests.compat.golden import compare
from tests.runs.platform import Platform

ENTITY = {"entity_id": "case-1", "data": {"person": {"name": "Ann"}}}


async def test_a_collection_and_its_records(platform: Platform) -> None:
    acme = platform.acme
    good = await acme.make(*judge('{"passed": true, "n": 1}'))
    bad = await acme.make(*judge("fail(words)"))
    tag = await acme.ok("POST", "/tags", {"name": "urgent"})
    body = {"name": "Loans", "description": "d", "tags_ids": [tag["id"]]}
    made = await acme.ask("POST", "/collections", body)
    compare("collection.json", made.content)
    path = f"/collections/{made.json()['id']}"
    rules = [
        {"name": "Good", "key": "good", "workflow_id": good, "execution_order": "before-all"},
        {"name": "Bad", "key": "bad", "workflow_id": bad, "on_fail": "WARN"},
        {"name": "Off", "key": "off", "workflow_id": good, "disabled": True,
         "workflow_input_default": {"note": "n"}, "workflow_version_id": 1},
    ]  # fmt: skip
    mappings = [{"source_path": "good:text", "destination_paths": ["bad:text"]}]
    changed = await acme.ask("PATCH", f"{path}/config", {"rules": rules, "mappings": mappings})
    compare("collection_config.json", changed.content)
    onto = [{"type": "property", "entity_path": "person.name", "input_path": ["good:text"]}]
    config = {"type": "PERSONA", "mappings": onto}
    trigger = await acme.ask("POST", f"{path}/triggers", {"name": "Seen", "config": config})
    compare("trigger.json", trigger.content)
    compare("collection_list.json", (await acme.ask("GET", "/collections")).content)

    bare = await acme.ask("POST", f"{path}/records", {"name": "Bare"})
    compare("record_draft.json", bare.content)
    status = await acme.ask("GET", f"{path}/records/{bare.json()['id']}/status")
    compare("record_status_errors.json", status.content)
    refused = await acme.ask("POST", f"{path}/records/{bare.json()['id']}/run", {"mode": "all"})
    compare("record_run_refused.json", refused.content)
    await acme.ok("DELETE", f"{path}/records/{bare.json()['id']}")

    entity = {**ENTITY, "trigger_id": trigger.json()["id"]}
    record = await acme.ask(
        "POST", f"{path}/records", {"name": "One", "tags_ids": [tag["id"]], "entity": entity}
    )
    one = f"{path}/records/{record.json()['id']}"
    compare("record_of_a_trigger.json", record.content)
    compare("record_status.json", (await acme.ask("GET", f"{one}/status")).content)
    await acme.ok("POST", f"{one}/run", {"mode": "all"})
    await rested(acme, one)
    compare("record_completed.json", (await acme.ask("GET", one)).content)
    compare("record_verbose.json", (await acme.ask("GET", f"{one}?verbose=all")).content)
    compare("record_list.json", (await acme.ask("GET", f"{path}/records")).content)
    compare("record_reset.json", (await acme.ask("POST", f"{one}/reset")).content)


async def test_a_record_that_runs_is_cancelled(platform: Platform) -> None:
    acme = platform.acme
    slow = await acme.make(*judge("wait(g)"))
    made = await acme.ok("POST", "/collections", {"name": "Loans"})
    path = f"/collections/{made['id']}"
    await acme.ok(
        "PATCH", f"{path}/config", {"rules": [{"name": "S", "key": "s", "workflow_id": slow}]}
    )
    body = {"rules": {"s": {"text": "x"}}}
    one = f"{path}/records/{(await acme.ok('POST', f'{path}/records', body))['id']}"
    await acme.ok("POST", f"{one}/run", {"mode": "all"})
    await platform.reached("g")
    compare("record_running.json", (await acme.ask("GET", one)).content)
    compare("record_cancelled.json", (await acme.ask("POST", f"{one}/cancel")).content)
