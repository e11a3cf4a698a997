"""One of everything of an app, for tests that go through all routes: ids for every path."""

from typing import Any

from tests.acceptance.harness import Caller
from tests.acceptance.kinds import first

UNKNOWN = "1" * 22
BODIES: dict[str, Any] = {
    "replay": {"stepKey": "first"},
    "retention": {"retention": 60},
    "rollback": {"version": 1},
    "runs": {"input": {"tag": "x"}},
    "versions": {"notes": "x"},
    "duplicate": {"name": "x"},
    "keys": {"name": "x"},
    "{version_id_or_version_number}": {"withdrawn": True},
    "{key}": {"value": "x"},
    "records": {"name": "x"},
    "run": {"mode": "all"},
    "config": {"rules": []},
    "expectations": {"name": "x", "script": "true"},
    "triggers": {"name": "x", "config": {"type": "PERSONA", "mappings": []}},
}
"""A body that would do, by the last part of the path; other writes get a name."""
WORDS = {"target"}
"""Parts of paths that are one of a few words."""


class Things:
    """One of everything, of an app."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.ids: dict[str, str] = {}

    async def make(self) -> "Things":
        """Make them, under names that every app uses."""
        caller = self.caller
        workflow_id = await caller.push([first()], name="Triage", key="triage")
        path = f"workflows/{workflow_id}"
        run = await caller.ok(
            "POST", f"{path}/runs", {"input": {"tag": caller.app_id}, "identifier": "same"}
        )
        (version,) = await caller.ok("GET", f"{path}/versions")
        file = await caller.ok("POST", "files", {"file": {"name": "a.txt", "data": "aGVsbG8="}})
        upload = await caller.ok("POST", "files/uploads", {"metadata": {"a": 1}})
        (key,) = await caller.ok("GET", "/apps/c/keys")
        # Keys are names that two apps may have both; only so are they of one alone.
        variable = {"key": f"K{caller.app_id[4:]}", "value": caller.app_id}
        await caller.ok("POST", "variables", variable)
        connection = await caller.ok("POST", "connections", {"name": "Chat", "type": "SLACK"})
        asked = {"workflow_id": workflow_id, "every": 31_622_400, "input": {"tag": "x"}}
        schedule = await caller.ok("POST", "schedules", asked)
        self.ids = {
            "workflow_id": workflow_id,
            "run_id": run["id"],
            "version_id_or_version_number": version["id"],
            "file_id": file["id"],
            "file_upload_id": upload["id"],
            "key_id": key["id"],
            "key": variable["key"],
            "connection_id": connection["id"],
            "schedule_id": schedule["id"],
            "caller_app_id": caller.app_id,
            "target": "latest",
        }
        here = (await caller.ok("GET", "/openapi.json"))["paths"]
        for last, make in (
            ("/tests", self._tests),
            ("/collections", self._collection),
            ("/webhooks", self._webhook),
        ):
            if any(path.endswith(last) for path in here):
                await make(path)
        return self

    async def _tests(self, path: str) -> None:
        test = await self.caller.ok("POST", f"{path}/tests", {"name": "Same"})
        expected = {"name": "Same", "script": "true"}
        expectation = await self.caller.ok("POST", f"{path}/tests/expectations", expected)
        self.ids |= {"test_id": test["id"], "expectation_id": expectation["id"]}

    async def _collection(self, path: str) -> None:
        tag = await self.caller.ok("POST", "tags", {"name": "Same"})
        made = await self.caller.ok("POST", "collections", {"name": "Same"})
        path = f"collections/{made['id']}"
        record = await self.caller.ok("POST", f"{path}/records", {"name": "Same"})
        trigger = await self.caller.ok("POST", f"{path}/triggers", BODIES["triggers"])
        self.ids |= {"collection_id": made["id"], "record_id": record["id"], "tag_id": tag["id"]}
        self.ids["trigger_id"] = trigger["id"]

    async def _webhook(self, path: str) -> None:
        body = {"url": "http://127.0.0.1:9/", "events": ["record.failed"]}
        webhook = await self.caller.ok("POST", "webhooks", body)
        told = await self.caller.ok("POST", f"webhooks/{webhook['id']}/test")
        self.ids |= {"webhook_id": webhook["id"], "delivery_id": told["id"]}

    def unknown(self) -> dict[str, str]:
        """Ids of the same forms that nothing has."""
        return {
            name: value
            if name in WORDS
            else value[: value.find("_") + 1] + ("K" if name == "key" else "") + UNKNOWN
            for name, value in self.ids.items()
        }
