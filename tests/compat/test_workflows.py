"""Byte for byte what clients get of workflows, versions and the catalogue."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.compat.golden import compare
from tests.contract import validate
from tests.workflows.platform import Platform, open_platform

TRIAGE: dict[str, Any] = {
    "name": "Invoice triage",
    "description": "Sorts invoices by amount",
    "input": {"amount": {"type": "number", "title": "Amount", "order": 0}},
    "input_default": {"amount": 12.5},
    "input_options": {"display": {"field": "inline", "container": "grid", "hidden": False}},
    "steps": [
        {"type": "note", "key": "about", "note": 'Ünïcode and "quotes"', "position": [0, 0.5]},
        {
            "type": "branch",
            "key": "size",
            "conditions": {
                "big": {"condition": "input.amount > 100", "destinations": ["ask"], "order": 0}
            },
            "else": ["accept"],
            "x_ours": {"kept": [1, 1.5, True, None]},
        },
        {"type": "code", "key": "accept", "code": "return {result: true}"},
        {"type": "code", "key": "ask", "code": "return false", "timeout": 2.5},
    ],
    "retention": {"max_age_in_seconds": 86400, "preserve_on_failure": True},
}


@pytest.fixture(params=["sqlite", "postgres"])
async def platform(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    url = None
    if request.param == "postgres":
        url = request.getfixturevalue("tables_url")
    async with open_platform(tmp_path, url) as opened:
        yield opened


async def test_answers_are_what_they_were(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    draft = await acme.ask("POST", "/workflows", TRIAGE)
    assert draft.status_code == 200, draft.text
    compare("workflow_draft.json", draft.content)
    own = f"/workflows/{draft.json()['id']}"
    version = await acme.ask("POST", f"{own}/versions", {"notes": "first", "description": None})
    compare("workflow_version.json", version.content)
    await acme.patch(draft.json()["id"], steps=[], discoverable=True)
    compare("workflow_published.json", (await acme.ask("GET", own)).content)
    back = await acme.ask("POST", f"{own}/rollback", {"version": 1, "force": True})
    compare("workflow_version_rollback.json", back.content)

    found = f"/workflows/discover/{draft.json()['id']}"
    listed = await globex.ask("GET", "/workflows/discover")
    assert listed.content == b"[" + (await globex.ask("GET", found)).content + b"]"
    compare("discover_open.json", listed.content)
    compare("discover_version_open.json", (await globex.ask("GET", f"{found}/versions/1")).content)
    await acme.patch(draft.json()["id"], open=False)
    closed = await globex.ask("GET", found)
    compare("discover_closed.json", closed.content)
    missing = await globex.ask("GET", own)
    compare("not_found.json", missing.content)

    validate(draft.json(), "WorkflowSchema")
    validate(version.json(), "WorkflowVersionSchema")
    validate(back.json(), "WorkflowVersionSchema")
    validate(listed.json()[0], "WorkflowSchema")
    validate(closed.json(), "WorkflowSchema")
