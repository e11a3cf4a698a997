"""``insula keys``."""

import json

from insula.cli.failures import ExitCode

from .conftest import Invoke
from .fake_server import Answer, FakeServer

KEY = {"id": "key_1", "name": "ci", "read_only": True, "last_used_at": None}


def test_create_list_revoke(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", "/apps/c/keys", Answer({**KEY, "key": "ins_new"}))
    server.on("GET", "/apps/c/keys", Answer([KEY]))
    server.on("DELETE", "/apps/c/keys/key_1", Answer(None))
    outcome = invoke("keys", "create", "ci", "--read-only", "--expires", "2027-01-31T00:00:00Z")
    assert "key ins_new" in outcome.out
    assert server.asked[0].body == {
        "name": "ci",
        "read_only": True,
        "expires_at": "2027-01-31T00:00:00Z",
    }
    assert "key_1" in invoke("keys", "list").out
    assert json.loads(invoke("keys", "list", "--json").out) == [KEY]
    assert invoke("keys", "revoke", "key_1").code == ExitCode.OK
    assert invoke("keys", "revoke", "../key_1").code == ExitCode.USAGE
