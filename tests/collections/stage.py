"""What the tests of collections have in common: workflows that judge, and ways to wait."""

import asyncio
from typing import Any

from tests.runs.platform import Caller, code

RESTING = ("DRAFT", "CANCELLED", "COMPLETED", "FAILED")


def judge(script: str, field: str = "text", **more: Any) -> list[dict[str, Any]]:
    """Make the steps of a workflow with one field that returns what the script says."""
    fields = {field: {"type": "string"}, "note": {"type": "string", "optional": True}}
    return [
        {"type": "input", "key": "start", "input": fields, "destinations": ["decide"]},
        code("decide", f"return {script}", **more),
    ]


async def rule(caller: Caller, key: str, script: str = "true", **more: Any) -> dict[str, Any]:
    """Make a workflow that judges, and the rule that runs it."""
    workflow_id = await caller.make(*judge(script))
    return {"name": f"Rule {key}", "key": key, "workflow_id": workflow_id, **more}


async def collection(
    caller: Caller, *rules: dict[str, Any], mappings: list[dict[str, Any]] | None = None
) -> str:
    """Make a collection with these rules; return its path."""
    made = await caller.ok("POST", "/collections", {"name": "Loans"})
    path = f"/collections/{made['id']}"
    await caller.ok("PATCH", f"{path}/config", {"rules": rules, "mappings": mappings or []})
    return path


async def rested(caller: Caller, path: str, *, seconds: float = 10, **query: Any) -> dict[str, Any]:
    """Wait until a record's analysis has ended; return the record."""
    async with asyncio.timeout(seconds):
        while True:
            found: dict[str, Any] = await caller.ok("GET", path, params=query)
            if found["status"] in RESTING:
                return found
            await asyncio.sleep(0.005)


def verdicts(record: dict[str, Any]) -> dict[str, str]:
    """Return the status of each rule."""
    return {key: each["status"] for key, each in record["rules"].items()}
