"""`Idempotency-Key` on every write that creates or starts something.

The routes are those that the server itself describes: a new one either takes the header or has its
reason here.
"""

import re

from tests.acceptance.harness import Caller, Clients
from tests.acceptance.things import BODIES, Things

DATABASES = ("sqlite", "postgres")
AGAIN = "ends or clears what a repeat finds ended or cleared"
SECRET = "makes another secret, and the answer to a repeat has the one that counts"
NOTHING = "stores nothing that a key could stand for"
EXCEPTIONS = {
    "/apps/{app_id}/collections/{collection_id}/records/{record_id}/cancel": AGAIN,
    "/apps/{app_id}/collections/{collection_id}/records/{record_id}/reset": AGAIN,
    "/apps/{app_id}/collections/{collection_id}/records/{record_id}/update-rules": AGAIN,
    "/apps/{app_id}/files/{file_id}/cancel": AGAIN,
    "/apps/{app_id}/runs/cancel": AGAIN,
    "/apps/{app_id}/workflows/{workflow_id}/runs/cancel": AGAIN,
    "/apps/{app_id}/workflows/{workflow_id}/runs/{run_id}/cancel": AGAIN,
    "/apps/{app_id}/workflows/{workflow_id}/tests/cancel": AGAIN,
    "/apps/{app_id}/workflows/{workflow_id}/tests/{test_id}/cancel": AGAIN,
    "/apps/{app_id}/workflows/discover/{workflow_id}/runs/{run_id}/cancel": AGAIN,
    "/apps/{app_id}/webhooks/{webhook_id}/rotate": SECRET,
    "/apps/{app_id}/workflows/{workflow_id}/hooks/{target}/rotate": SECRET,
    "/apps/{app_id}/connections/{connection_id}/test": NOTHING,
    "/apps/{app_id}/runs/step": NOTHING,
    "/apps": "is the administrator's, and tested with apps",
    "/secrets/rotate": "is the administrator's: seals anew what is not sealed with today's key",
    "/public/apps/files/uploads/{file_upload_id}": "has no key: a link works once",
}
BODY = {
    "/apps/{app_id}/files": {"file": {"name": "a.txt", "data": "aGVsbG8="}},
    "/apps/{app_id}/files/uploads": {},
    "/apps/{app_id}/variables": {"key": "NEW", "value": "x"},
    "/apps/{app_id}/connections": {"name": "Chat", "type": "SLACK"},
    "/apps/{app_id}/webhooks": {"url": "http://127.0.0.1:9/", "events": ["record.failed"]},
    "/apps/{app_id}/workflows/{workflow_id}/tests/runs": {},
    "/apps/{app_id}/workflows/{workflow_id}/tests/{test_id}/runs": {},
}


async def _posts(caller: Caller) -> list[str]:
    described = await caller.ok("GET", "/openapi.json")
    return [path for path, methods in described["paths"].items() if "post" in methods]


async def test_a_key_is_read_wherever_something_is_made(callers: Clients) -> None:
    """One that cannot be used is refused there, and elsewhere passed over."""
    things = await Things(await callers.app("Acme")).make()
    caller, ids = things.caller, {**things.ids, "app_id": "c"}
    await caller.ok("PATCH", f"workflows/{ids['workflow_id']}", {"discoverable": True})
    schedule = {"workflow_id": ids["workflow_id"], "every": 31_622_400, "input": {"tag": "x"}}
    bodies = {**BODY, "/apps/{app_id}/schedules": schedule}
    posts = await _posts(caller)
    assert EXCEPTIONS.keys() <= set(posts)
    for template in posts:
        if template in EXCEPTIONS:
            continue
        path = re.sub(r"{(\w+)}", lambda match: ids[match[1]], template)
        body = bodies.get(template, BODIES.get(template.rpartition("/")[2], {"name": "x"}))
        answer = await caller.ask("POST", path, body, headers={"idempotency-key": "x" * 256})
        assert answer.status == 400, (template, answer.status, answer.body[:300])
        named = [error["path"] for error in answer.json()["errors"]]
        assert named == [["idempotency-key"]], (template, answer.body[:300])
