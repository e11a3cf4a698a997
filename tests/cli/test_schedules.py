"""``insula schedules list``: a table for people, JSON for scripts."""

import json

from .conftest import Invoke
from .fake_server import Answer, FakeServer


def test_list(server: FakeServer, invoke: Invoke) -> None:
    common = {"workflow_id": "work_1", "timezone": "UTC", "next_at": None, "last_error": None}
    found = [
        {"id": "sched_1", "every": 60, **common},
        {"id": "sched_2", "cron": "@daily", **common, "timezone": "Europe/Berlin"},
        {"id": "sched_3", "at": "2099-01-01T00:00:00.000Z", **common, "last_error": "It is gone"},
    ]
    server.on("GET", "/apps/c/schedules", Answer(found))
    told = invoke("schedules", "list", "--workflow", "work_1")
    for words in ("every 60 s", "@daily Europe/Berlin", "once at 2099", "It is gone"):
        assert words in told.out
    assert server.asked[0].query["workflow_id"] == ["work_1"]
    assert json.loads(invoke("schedules", "list", "--json").out) == found


def test_none(server: FakeServer, invoke: Invoke) -> None:
    server.on("GET", "/apps/c/schedules", Answer([]))
    assert "There are no schedules." in invoke("schedules", "list").err
