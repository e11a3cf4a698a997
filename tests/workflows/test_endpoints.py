"""An app's own workflows over HTTP: made, listed, changed, copied, moved as files, deleted."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from tests.contract import validate
from tests.workflows.platform import CODE, Platform

from insula.kit.ids import new_id
from insula.storage import tables
from insula.workflows.callers import RAN
from insula.workflows.yaml_text import dump

BODY = ("key", "input", "input_default", "input_options", "steps")
FULL: dict[str, Any] = {
    "name": "Invoice triage",
    "description": "Sorts invoices",
    "key": "triage",
    "input": {"amount": {"type": "number", "title": "Amount"}},
    "input_default": {"amount": 2.5},
    "input_options": {"display": {"field": "inline", "container": "grid", "hidden": False}},
    "steps": [{**CODE, "note_of_ours": {"a": [1, 2.0, None, "é\n", 2**60]}}],
    "retention": {"max_age_in_seconds": 3600, "preserve_on_failure": True},
    "enabled": True,
}


async def test_what_is_made_is_what_was_sent(platform: Platform) -> None:
    made = await platform.acme.make(**FULL)
    assert {name: made[name] for name in FULL} == FULL
    assert made["app"] == {"id": platform.acme.id, "name": "Acme", "verified": False}
    assert (made["version"], made["runs_count"], made["deleted"]) == (None, 0, False)
    assert (made["template_id"], made["tags"], made["problems"]) == (None, [], [])
    assert await platform.acme.get(f"/workflows/{made['id']}") == made
    validate(made, "WorkflowSchema")


async def test_a_name_is_enough(platform: Platform) -> None:
    answer = await platform.acme.ask("POST", "/workflows", {"name": "My first one"})
    made = answer.json()
    assert answer.status_code == 200
    assert (made["key"], made["steps"], made["retention"]) == ("my_first_one", [], None)
    validate(made, "WorkflowSchema")


async def test_a_form_says_the_same(platform: Platform) -> None:
    form = {
        "name": (None, "Sum"),
        "steps": (None, '[{"type":"code","key":"sum","code":"return 1"}]'),
        "retention": (None, "60"),
        "enabled": (None, "false"),
    }
    made = (await platform.acme.ask("POST", "/workflows", files=form)).json()
    assert made["steps"] == [{"type": "code", "key": "sum", "code": "return 1"}]
    assert made["retention"] == {"max_age_in_seconds": 60}
    assert made["enabled"] is False


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ["name"]),
        ({"name": " "}, ["name"]),
        ({"name": "x" * 201}, ["name"]),
        ({"name": "a\0b"}, ["name"]),
        ({"name": "x", "description": 3}, ["description"]),
        ({"name": "x", "retention": "long"}, ["retention"]),
        ({"name": "x", "enabled": "yes"}, ["enabled"]),
        ({"name": "x", "tags_ids": ["tag_1"]}, ["tags_ids", "0"]),
        ({"name": "x", "steps": 3}, ["steps"]),
        ({"name": "x", "steps": [3]}, ["steps", "0"]),
        ({"name": "x", "input": [1]}, ["input"]),
        ({"name": "x", "key": 3}, ["key"]),
    ],
)
async def test_what_is_wrong_is_named(
    platform: Platform, body: dict[str, Any], path: list[str]
) -> None:
    answer = await platform.acme.ask("POST", "/workflows", body)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["status"] == 400
    assert any(error["path"][: len(path)] == path for error in problem["errors"])
    assert await platform.acme.get("/workflows") == []


async def test_the_list_is_walked_by_page_and_by_cursor(platform: Platform) -> None:
    made = [(await platform.acme.make(name=f"Number {n}"))["id"] for n in range(7)]
    await platform.globex.make()
    newest = list(reversed(made))
    by_page: list[str] = []
    for page in (1, 2, 3, 4):
        answer = await platform.acme.ask("GET", "/workflows", params={"page": page, "take": 3})
        assert answer.headers["pagination-count"] == "7"
        assert answer.headers["pagination-take"] == "3"
        by_page += [each["id"] for each in answer.json()]
    assert by_page == newest
    by_cursor: list[str] = []
    query: dict[str, Any] = {"take": 2}
    while True:
        answer = await platform.acme.ask("GET", "/workflows", params=query)
        by_cursor += [each["id"] for each in answer.json()]
        if "pagination-next" not in answer.headers:
            break
        query["next"] = answer.headers["pagination-next"]
    assert by_cursor == newest


async def test_search_keeps_what_holds_every_word(platform: Platform) -> None:
    await platform.acme.make(name="Invoice triage", description="for the 100% team")
    await platform.acme.make(name="Reminder")

    async def names(**query: Any) -> list[str]:
        return [each["name"] for each in await platform.acme.get("/workflows", **query)]

    assert await names(search="TRIAGE") == ["Invoice triage"]
    assert await names(search="invoice team") == ["Invoice triage"]
    assert await names(search="invoice reminder") == []
    assert await names(search="100%") == ["Invoice triage"]
    assert await names(search="1%0") == []
    assert await names(search="_") == []
    await platform.acme.make(name="Ärger im Büro")
    assert await names(search="Ärger BüRO") == ["Ärger im Büro"]
    assert await names(search="ärger") == []  # which both databases hold for another letter
    assert await names(search="Ärger") == ["Ärger im Büro"]
    assert len(await names(search="  ")) == 3
    assert await names(tags="tag_1") == []
    answer = await platform.acme.ask("GET", "/workflows", params={"search": "e"})
    assert answer.headers["pagination-count"] == "3"
    bad = await platform.acme.ask("GET", "/workflows", params={"search": "\0"})
    assert bad.status_code == 400


async def test_a_change_leaves_the_rest(platform: Platform) -> None:
    made = await platform.acme.make(**FULL)
    steps = [{"type": "code", "key": "other", "code": "return 2"}]
    changed = await platform.acme.patch(
        made["id"], name="New", steps=steps, retention=None, description=None, caller_limit=3
    )
    expected = {**made, "name": "New", "steps": steps, "retention": None, "description": None}
    expected |= {"caller_limit": 3, "updated_at": changed["updated_at"]}
    assert changed == expected
    assert changed["updated_at"] > made["updated_at"]


async def test_an_answer_can_be_sent_back(platform: Platform) -> None:
    made = await platform.acme.make(**FULL)
    again = await platform.acme.patch(made["id"], **made)
    assert again == {**made, "updated_at": again["updated_at"]}


async def test_an_update_on_an_old_state_is_refused(platform: Platform) -> None:
    made = await platform.acme.make()
    await platform.acme.patch(made["id"], name="Mine", updated_at=made["updated_at"])
    path = f"/workflows/{made['id']}"
    lost = await platform.acme.ask(
        "PATCH", path, {"name": "Theirs", "updated_at": made["updated_at"]}
    )
    assert lost.status_code == 409
    assert (await platform.acme.get(path))["name"] == "Mine"
    bad = await platform.acme.ask("PATCH", path, {"updated_at": "yesterday"})
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (400, ["updated_at"])


async def test_concurrent_changes_of_different_fields_are_all_kept(platform: Platform) -> None:
    made = await platform.acme.make()
    changes: list[dict[str, Any]] = [
        {"name": "N"},
        {"description": "D"},
        {"retention": 7},
        {"key": "other"},
        {"input_default": {"a": 1}},
        {"enabled": False},
    ]
    async with asyncio.TaskGroup() as group:
        for change in changes:
            group.create_task(platform.acme.patch(made["id"], **change))
    kept = await platform.acme.get(f"/workflows/{made['id']}")
    for change in changes[:2] + changes[3:]:
        assert {name: kept[name] for name in change} == change
    assert kept["retention"] == {"max_age_in_seconds": 7}


async def test_a_refused_change_changes_nothing(platform: Platform) -> None:
    made = await platform.acme.make()
    path = f"/workflows/{made['id']}"
    answer = await platform.acme.ask("PATCH", path, {"name": "New", "steps": [{"type": "?"}]})
    assert answer.status_code == 400
    assert await platform.acme.get(path) == made


async def test_a_copy_is_new_and_private(platform: Platform) -> None:
    made = await platform.acme.publish(**FULL)
    answer = await platform.acme.ask("POST", f"/workflows/{made['id']}/duplicate")
    copy = answer.json()
    assert copy["name"] == "Invoice triage (copy)"
    assert {name: copy[name] for name in BODY} == {name: made[name] for name in BODY}
    assert (copy["version"], copy["discoverable"], copy["runs_count"]) == (None, False, 0)
    named = await platform.acme.ask(
        "POST", f"/workflows/{made['id']}/duplicate", {"name": "Second"}
    )
    assert named.json()["name"] == "Second"


@pytest.mark.parametrize("form", ["json", "yaml"])
async def test_a_file_makes_the_same_workflow(platform: Platform, form: str) -> None:
    made = await platform.acme.make(**FULL)
    path = f"/workflows/{made['id']}/export"
    file = await platform.acme.ask("GET", path, params={"format": form})
    assert file.headers["content-disposition"] == f'attachment; filename="triage.{form}"'
    imported = await platform.globex.ask(
        "POST",
        "/workflows/import",
        content=file.content,
        headers={"content-type": file.headers["content-type"]},
    )
    assert imported.status_code == 200, imported.text
    copy = imported.json()
    again = await platform.globex.ask(
        "GET", f"/workflows/{copy['id']}/export", params={"format": form}
    )
    assert again.content == file.content
    assert {name: copy[name] for name in FULL} == FULL


async def test_a_bad_file_is_refused_in_words(platform: Platform) -> None:
    async def send(text: str) -> tuple[int, str]:
        headers = {"content-type": "application/yaml"}
        answer = await platform.acme.ask(
            "POST", "/workflows/import", content=text.encode(), headers=headers
        )
        return answer.status_code, answer.text

    for sent, why in [
        ("a: [", "line"),
        ("- a", "object"),
        (dump({"steps": []}), "name"),
        (dump({"name": "x", "steps": 3}), "steps"),
        ("a: &x 1", "anchors"),
    ]:
        status, body = await send(sent)
        assert status == 400
        assert why in body


async def test_a_deleted_workflow_is_gone_after_what_ran_in_it(platform: Platform) -> None:
    made = await platform.acme.publish()
    path = f"/workflows/{made['id']}"
    answer = await platform.acme.ask("DELETE", path)
    assert (answer.status_code, answer.json()) == (200, None)
    assert platform.deleted == [(platform.acme.id, made["id"])]
    for method, where in [("GET", path), ("PATCH", path), ("DELETE", path)]:
        body = {} if method == "PATCH" else None
        assert (await platform.acme.ask(method, where, body)).status_code == 404
    assert await platform.acme.get("/workflows") == []
    assert await platform.globex.get("/workflows/discover") == []


async def test_the_same_idempotency_key_makes_one(platform: Platform) -> None:
    headers = {"idempotency-key": "once"}
    body = {"name": "Sum", "steps": [CODE]}
    first = await platform.acme.ask("POST", "/workflows", body, headers=dict(headers))
    second = await platform.acme.ask("POST", "/workflows", body, headers=dict(headers))
    assert first.json() == second.json()
    assert len(await platform.acme.get("/workflows")) == 1
    other = await platform.acme.ask("POST", "/workflows", {"name": "B"}, headers=dict(headers))
    assert other.status_code == 422
    path = f"/workflows/{first.json()['id']}/versions"
    deployed = [await platform.acme.ask("POST", path, headers=dict(headers)) for _ in range(2)]
    assert deployed[0].json() == deployed[1].json()
    assert len(await platform.acme.get(path)) == 1


async def test_another_file_under_the_same_key_is_another_request(platform: Platform) -> None:
    answers = []
    for name in ("A", "B", "A"):
        text = dump({"name": name, "steps": []}).encode()
        headers = {"content-type": "application/yaml", "idempotency-key": "once"}
        answers.append(
            await platform.acme.ask("POST", "/workflows/import", content=text, headers=headers)
        )
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert answers[2].json() == answers[0].json()


async def test_the_owner_sees_its_callers_counts_and_blocks_them(platform: Platform) -> None:
    made = await platform.acme.publish()
    callers = [platform.globex.id, platform.initech.id]

    def runs(connection: Any) -> None:
        for app_id in [*callers, platform.acme.id] * 3:
            connection.execute(
                insert(tables.runs).values(
                    id=new_id("run"), app_id=app_id, workflow_app_id=platform.acme.id,
                    workflow_id=made["id"], root_id="run_1", status="COMPLETED",
                    origin="ENDPOINT", created_at=1, updated_at=1,
                )
            )  # fmt: skip
        for app_id in callers:
            connection.execute(
                insert(tables.counters).values(
                    app_id=app_id, workflow_id=made["id"], status="COMPLETED",
                    origin="ENDPOINT", count=3,
                )
            )  # fmt: skip

    await platform.database.write(runs)
    path = f"/workflows/{made['id']}/callers"
    blocked = await platform.acme.ask("PUT", f"{path}/{callers[0]}")
    assert blocked.json() == {"app_id": callers[0], "blocked": True}
    listed = await platform.acme.get(path)
    assert [each["app"]["id"] for each in listed] == sorted(callers)
    assert {each["app"]["id"]: each["blocked"] for each in listed} == {
        callers[0]: True,
        callers[1]: False,
    }
    assert {each["runs_count"] for each in listed} == {3}
    paged = await platform.acme.ask("GET", path, params={"take": 1})
    rest = await platform.acme.get(path, take=1, next=paged.headers["pagination-next"])
    assert paged.json() + rest == listed
    assert paged.headers["pagination-count"] == "2"
    assert (await platform.acme.ask("DELETE", f"{path}/{callers[0]}")).json() is None
    assert not any(each["blocked"] for each in await platform.acme.get(path))


async def test_only_other_apps_can_be_blocked(platform: Platform) -> None:
    made = await platform.acme.publish()
    for caller in (platform.acme.id, "app_1", "work_1"):
        answer = await platform.acme.ask("PUT", f"/workflows/{made['id']}/callers/{caller}")
        assert answer.status_code == 400


async def test_counters_say_how_many_there_are(platform: Platform) -> None:
    made = [await platform.acme.make() for _ in range(3)]
    await platform.acme.ask("DELETE", f"/workflows/{made[0]['id']}")
    answer = await platform.acme.ask("GET", "/workflows")
    there = await platform.database.read(
        lambda c: c.scalar(
            select(func.count()).select_from(tables.workflows).where(~tables.workflows.c.deleted)
        )
    )
    assert answer.headers["pagination-count"] == str(there) == "2"


async def test_callers_are_found_by_jumping_along_the_index(platform: Platform) -> None:
    values = {"workflow": "w", "after": "", "owner": "o", "most": 1}
    plan = await platform.database.read(
        lambda c: c.execute(text(f"EXPLAIN QUERY PLAN {RAN}"), values).all()
    )
    told = [row.detail for row in plan if " runs" in row.detail]
    assert len(told) == 2
    assert all("USING COVERING INDEX runs_by_workflow" in each for each in told)
