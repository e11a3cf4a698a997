"""``insula secrets``: with the admin key, and on a folder of one's own."""

import json
from pathlib import Path

import pytest

from insula.adapters.keyring import FILE, open_ring
from insula.cli.examined_keys import look_at_keys
from insula.cli.failures import ExitCode
from insula.settings import load_settings
from insula.storage.opening import open_database
from insula.variables import repository

from .conftest import Invoke
from .fake_server import Answer, FakeServer


def test_rotating_asks_the_server_with_the_admin_key(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", "/secrets/rotate", Answer({"rotated": 3, "key_id": "abc"}))
    outcome = invoke("secrets", "rotate")
    assert outcome.code == ExitCode.OK
    assert "3 secrets" in outcome.out
    assert server.asked[0].headers["authorization"] == "Bearer insadm_test"
    assert json.loads(invoke("secrets", "rotate", "--json").out)["rotated"] == 3


async def test_the_doctor_looks_at_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[str, str]:
        return look_at_keys(tmp_path, load_settings(data_dir=tmp_path))

    assert found() == ("ok", "one will be made at the first start")
    ring = open_ring(tmp_path, None)
    assert found() == ("ok", "1 key")
    file = tmp_path / FILE
    file.chmod(0o644)
    assert found()[0] == "warning"
    file.chmod(0o600)
    database = await open_database(None, tmp_path, "NORMAL", "test")
    sealed = ring.seal("geheim", "variable", "app_1", "KEY")
    value = repository.Value("KEY", None, sealed, ring.current, None, created_at=1)
    await database.write(lambda connection: repository.put(connection, "app_1", [value], now=1))
    await database.close()
    assert found() == ("ok", "1 key")
    text = file.read_text()
    file.unlink()
    verdict, detail = found()
    assert verdict == "failed"
    assert "Put it back" in detail
    file.write_text("nonsense")
    assert found()[0] == "failed"
    file.unlink()
    monkeypatch.setenv("INSULA_SECRET_KEYS", text.strip())
    assert found() == ("ok", "1 key")
    monkeypatch.setenv("INSULA_SECRET_KEYS", "nonsense")
    verdict, detail = found()
    assert verdict == "failed"
    assert "entry 1 of INSULA_SECRET_KEYS" in detail
