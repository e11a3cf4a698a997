"""Byte for byte what clients get of workflows, versions and the catalogue.

Ids and times are replaced by their kind and number. To accept a change that is meant, delete the
file and run the tests twice: the first run writes it and fails.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract import validate
from tests.workflows.platform import Platform, open_platform

FOLDER = Path(__file__).parent
IDS = re.compile(rb"(app|work|workv|key)_[1-9A-HJ-NP-Za-km-z]{22}")
TIMES = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")

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


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with open_platform(tmp_path) as opened:
        yield opened


def plain(text: bytes) -> bytes:
    """Replace ids and times by names that do not change."""
    seen: dict[bytes, int] = {}

    def name(match: re.Match[bytes]) -> bytes:
        number = seen.setdefault(match[0], len(seen) + 1)
        return b"%s_#%d" % (match[1], number)

    return TIMES.sub(b"TIME", IDS.sub(name, text)) + b"\n"


def compare(name: str, text: bytes) -> None:
    golden = FOLDER / f"{name}.json"
    found = plain(text)
    if not golden.exists():
        golden.write_bytes(found)
        pytest.fail(f"{golden.name} did not exist and was written: read it and commit it")
    assert found == golden.read_bytes()


async def test_answers_are_what_they_were(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    draft = await acme.ask("POST", "/workflows", TRIAGE)
    assert draft.status_code == 200, draft.text
    compare("workflow_draft", draft.content)
    own = f"/workflows/{draft.json()['id']}"
    version = await acme.ask("POST", f"{own}/versions", {"notes": "first", "description": None})
    compare("workflow_version", version.content)
    await acme.patch(draft.json()["id"], steps=[], discoverable=True)
    compare("workflow_published", (await acme.ask("GET", own)).content)
    back = await acme.ask("POST", f"{own}/rollback", {"version": 1, "force": True})
    compare("workflow_version_rollback", back.content)

    found = f"/workflows/discover/{draft.json()['id']}"
    listed = await globex.ask("GET", "/workflows/discover")
    assert listed.content == b"[" + (await globex.ask("GET", found)).content + b"]"
    compare("discover_open", listed.content)
    compare("discover_version_open", (await globex.ask("GET", f"{found}/versions/1")).content)
    await acme.patch(draft.json()["id"], open=False)
    closed = await globex.ask("GET", found)
    compare("discover_closed", closed.content)
    missing = await globex.ask("GET", own)
    compare("not_found", missing.content)

    validate(draft.json(), "WorkflowSchema")
    validate(version.json(), "WorkflowVersionSchema")
    validate(back.json(), "WorkflowVersionSchema")
    validate(listed.json()[0], "WorkflowSchema")
    validate(closed.json(), "WorkflowSchema")
