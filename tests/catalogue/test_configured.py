"""What a workflow's owner has configured: other apps' runs use it, and are not shown it."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import Caller, Platform, child, code, open_platform

FIELDS = {
    "q": {"type": "string", "order": 0, "optional": True},
    "level": {"type": "number", "config": True, "order": 1},
    "link": {"type": "connection", "config": True, "order": 2},
    "inner": {
        "type": "object",
        "config": True,
        "order": 3,
        "fields": {"link": {"type": "connection", "order": 0}, "note": {"type": "string"}},
    },
    "terms": {"type": "file", "config": True, "order": 4},
}
TEXT = "the owner's terms"


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path) as opened:
        yield opened


async def stored(owner: Caller, text: str = TEXT) -> str:
    data = base64.b64encode(text.encode()).decode()
    made = await owner.ok("POST", "/files", {"file": {"data": data, "name": "terms.txt"}})
    return str(made["id"])


async def configured(owner: Caller, terms: Any, *more: dict[str, Any], is_open: bool = True) -> str:
    """Publish a workflow with a value in every kind of configured field."""
    default = {
        "level": 7,
        "link": "con_owners",
        "inner": {"link": "con_owners", "note": "quiet"},
        "terms": terms,
    }
    first = {"type": "input", "key": "start", "input": FIELDS, "destinations": ["last"]}
    last = code("last", "input.level")
    return await owner.publish(first, last, *more, input_default=default, open=is_open)


async def bytes_of(caller: Caller, file: dict[str, Any]) -> bytes:
    return (await caller.client.get(file["file_url"])).content


@pytest.mark.parametrize("form", ["id", "object", "address"])
async def test_a_run_of_another_app_has_a_copy_of_the_file(whole: Platform, form: str) -> None:
    acme, globex = whole.acme, whole.globex
    file_id = await stored(acme)
    shown = await acme.ok("GET", f"/files/{file_id}")
    terms = {"id": file_id, "object": {"file_id": file_id}, "address": shown["file_url"]}[form]
    flow = await configured(acme, terms)
    run = await globex.discover(flow)
    assert (run["status"], run["result"]) == ("COMPLETED", 7)
    copy = run["input"]["terms"]
    assert (copy["file_filename"], copy["storage"]) == ("terms.txt", "TEMPORARY")
    assert copy["file_id"] != file_id
    assert await bytes_of(globex, copy) == TEXT.encode()
    assert file_id not in str(run["input"])
    assert (await globex.ask("GET", f"/files/{file_id}")).status_code == 404
    own = await acme.run(flow)
    assert own["input"]["terms"]["file_id"] == file_id


async def test_a_child_of_another_app_has_it_too(whole: Platform) -> None:
    flow = await configured(whole.acme, await stored(whole.acme))
    calling = await whole.globex.make(child("call", flow))
    run = await whole.globex.run(calling)
    assert run["status"] == "COMPLETED", run["error"]
    assert "con_owners" not in str(run["output"])


async def test_what_is_wrong_with_the_file_tells_nothing_of_it(whole: Platform) -> None:
    file_id = await stored(whole.acme)
    flow = await configured(whole.acme, file_id)
    assert (await whole.acme.ask("DELETE", f"/files/{file_id}")).status_code == 200
    answer = await whole.globex.ask("POST", f"/workflows/discover/{flow}/runs", {})
    assert answer.status_code == 400
    assert file_id not in answer.text
    assert [error["path"] for error in answer.json()["errors"]] == [["input", "terms"]]
    own = await whole.acme.ask("POST", f"/workflows/{flow}/runs", {})
    assert file_id in own.text


async def test_a_file_that_the_caller_names_is_the_caller_s(whole: Platform) -> None:
    file_id = await stored(whole.acme)
    flow = await configured(whole.acme, file_id)
    body = {"input": {"terms": file_id}}
    answer = await whole.globex.ask("POST", f"/workflows/discover/{flow}/runs", body)
    assert answer.status_code == 400


@pytest.mark.parametrize("is_open", [True, False])
async def test_nobody_else_is_shown_what_is_configured(whole: Platform, is_open: bool) -> None:
    acme, globex = whole.acme, whole.globex
    file_id = await stored(acme)
    end = {"type": "input", "key": "echo", "input": FIELDS, "input_connected": True}
    flow = await configured(acme, file_id, end, is_open=is_open)
    path = f"/workflows/discover/{flow}"
    run = await globex.discover(flow, input={"q": "x"})
    assert run["result"] == 7
    seen = {"q": "x"} | ({"level": 7, "inner": {"note": "quiet"}} if is_open else {})
    terms = run["input"].pop("terms", None)
    assert run["input"] == seen
    assert (terms is not None) is is_open
    told = await globex.stream(f"{path}/runs", {"stream": True})
    replayed = await globex.ok("POST", f"{path}/runs/{run['id']}/replay", {"stepKey": "last"})
    assert replayed["result"] == 7
    for one in (
        run,
        replayed,
        [each.data for each in told],
        [each.data for each in await globex.stream(f"{path}/runs/{run['id']}/stream")],
        await globex.ok("GET", f"{path}/runs/{run['id']}"),
        await globex.ok("GET", f"{path}/runs"),
        await globex.ok("GET", "/runs"),
        await globex.ok("GET", path),
        await globex.ok("GET", "/workflows/discover"),
        await globex.ok("GET", f"{path}/versions/latest"),
    ):
        assert "con_owners" not in str(one)
        if not is_open:
            assert "quiet" not in str(one)
            assert file_id not in str(one)
    default = (await globex.ok("GET", path))["input_default"]
    assert default == (
        {"level": 7, "inner": {"note": "quiet"}, "terms": file_id} if is_open else {}
    )


async def test_its_owner_and_what_a_caller_gives_are_shown(whole: Platform) -> None:
    flow = await configured(whole.acme, await stored(whole.acme), is_open=False)
    own = await whole.acme.run(flow)
    assert own["input"]["link"] == "con_owners"
    assert own["workflow_version"]["input_default"]["link"] == "con_owners"
    run = await whole.globex.discover(flow, input={"level": 8, "link": "con_mine"})
    assert run["input"] == {"level": 8, "link": "con_mine"}
    assert run["result"] == 8


async def test_a_record_keeps_nothing_of_it(whole: Platform) -> None:
    file_id = await stored(whole.acme)
    flow = await configured(whole.acme, file_id, is_open=False)
    made = await whole.globex.ok("POST", "/collections", {"name": "C"})
    path = f"/collections/{made['id']}"
    rule = {"name": "Rule", "key": "rule", "workflow_id": flow}
    await whole.globex.ok("PATCH", f"{path}/config", {"rules": [rule]})
    body = {"rules": {"rule": {"q": "x"}}, "name": "R"}
    record = await whole.globex.ok("POST", f"{path}/records", body)
    assert "con_owners" not in str(record)
    assert file_id not in str(record)
