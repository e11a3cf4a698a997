"""``insula doctor``: each thing it looks at, all right and not."""

import errno
import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest

from insula.adapters.sandbox.walls import Wall
from insula.cli import examination, examined_cluster
from insula.cli.failures import ExitCode
from insula.cli.kept_keys import Server, write_server
from insula.engine.ports import Lane
from insula.storage.lock import FolderLock
from insula.storage.migrate import chain, migrate
from insula.storage.offline import open_file

from .conftest import Invoke


@pytest.fixture
def walls(monkeypatch: pytest.MonkeyPatch) -> list[Wall]:
    found = [Wall("seccomp", True, "socket refused")]

    async def inspect(lane: Lane) -> list[Wall]:
        return found

    monkeypatch.setattr(examination, "inspect", inspect)
    monkeypatch.setenv("INSULA_PORT", "0")
    return found


def findings(out: str) -> dict[str, tuple[str, str]]:
    return {entry["about"]: (entry["verdict"], entry["detail"]) for entry in json.loads(out)}


def test_everything_is_there(walls: list[Wall], invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("doctor", "--data", str(tmp_path / "new"), "--json")
    assert outcome.code == ExitCode.OK
    found = findings(outcome.out)
    assert found["v8 seccomp"] == ("ok", "socket refused")
    assert found["data folder"][1].endswith("will be made")
    assert found["INSULA_PORT"] == ("ok", "0")
    assert "Everything needed is there." in outcome.err


def test_a_wall_that_has_to_stand_and_one_that_need_not(
    walls: list[Wall], invoke: Invoke, tmp_path: Path
) -> None:
    walls.append(Wall("network", False, "no namespaces here"))
    assert invoke("doctor", "--data", str(tmp_path)).code == ExitCode.OK
    walls.append(Wall("landlock", False, "the kernel lacks it"))
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.FAILED
    found = findings(outcome.out)
    assert found["quickjs landlock"] == ("failed", "the kernel lacks it")
    assert found["quickjs network"] == ("warning", "no namespaces here")


def test_a_port_in_use_and_a_bad_setting(
    walls: list[Wall], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("INSULA_PORT", str(taken.getsockname()[1]))
        outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.FAILED
    assert findings(outcome.out)["port"][0] == "failed"
    monkeypatch.setenv("INSULA_PORT", "no")
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert findings(outcome.out)["settings"][0] == "failed"
    monkeypatch.delenv("INSULA_PORT")
    monkeypatch.setenv("INSULA_EGRESS_ALLOW", "localhost:no")
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    verdict, detail = findings(outcome.out)["settings"]
    assert verdict == "failed"
    assert detail.startswith("INSULA_EGRESS_ALLOW: ")
    monkeypatch.delenv("INSULA_EGRESS_ALLOW")
    monkeypatch.setenv("INSULA_PROVIDER_OURS_KEY", "s3cret")
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert findings(outcome.out)["settings"][1].endswith(
        "INSULA_PROVIDER_OURS_URL is not: set it too"
    )
    assert "s3cret" not in outcome.out


def test_a_setting_that_is_misspelt(
    walls: list[Wall], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSULA_RUN_MAX", "5")
    monkeypatch.setenv("INSULA_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("INSULA_PROVIDER_OURS_URL", "http://127.0.0.1:1/v1")
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.OK
    found = findings(outcome.out)
    assert found["INSULA_RUN_MAX"] == ("warning", "there is no such setting")
    assert not {"INSULA_URL", "INSULA_PROVIDER_OURS_URL"} & set(found)


def test_a_folder_in_use_and_open_to_others(
    walls: list[Wall], invoke: Invoke, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    write_server(tmp_path, Server(os.getpid(), "http://127.0.0.1:1"))
    with FolderLock(tmp_path):
        found = findings(invoke("doctor", "--data", str(tmp_path), "--json").out)
    assert found["lock"] == ("ok", f"held by process {os.getpid()}, serving at http://127.0.0.1:1")
    assert found["data folder"][0] == "warning"
    assert "port" not in found


def test_a_folder_of_somebody_else(
    walls: list[Wall], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "insula.lock"))

    monkeypatch.setattr(examination, "holder", refuse)
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.FAILED
    found = findings(outcome.out)
    assert found["data folder"][0] == "failed"
    assert "run this as the user whose" in found["data folder"][1]
    assert found["python"][0] == "ok"


@pytest.mark.parametrize("start", ["A letter to nobody.", "SQLite format 3\0 and no more"])
def test_a_file_that_is_no_database(
    walls: list[Wall], invoke: Invoke, tmp_path: Path, start: str
) -> None:
    (tmp_path / "insula.db").write_text(start * 40)
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.FAILED
    for about in ("secret keys", "database"):
        verdict, detail = findings(outcome.out)[about]
        assert verdict == "failed"
        assert str(tmp_path / "insula.db") in detail


def test_the_schema_of_a_file(walls: list[Wall], invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "insula.db"
    with open_file(file) as connection:
        migrate(connection, 1)
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.OK
    assert findings(outcome.out)["database"] == (
        "ok",
        f"{file}: schema 1; the next start makes it {len(chain())}",
    )
    for change, told in (
        ("UPDATE facts SET value = '999'", "newer version"),
        ("ALTER TABLE facts RENAME TO theirs", "another program"),
    ):
        with sqlite3.connect(file) as changing:
            changing.execute(change)
        changing.close()
        outcome = invoke("doctor", "--data", str(tmp_path), "--json")
        assert outcome.code == ExitCode.FAILED
        verdict, detail = findings(outcome.out)["database"]
        assert verdict == "failed"
        assert told in detail


def test_a_file_in_place_of_the_folder(walls: list[Wall], invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = invoke("doctor", "--data", str(tmp_path / "file"), "--json")
    assert outcome.code == ExitCode.FAILED
    assert findings(outcome.out)["data folder"] == ("failed", f"{tmp_path / 'file'} is no folder")


@pytest.mark.parametrize("folder", ["file/below", "/proc/insula"])
def test_a_folder_that_cannot_be_made(
    walls: list[Wall], invoke: Invoke, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").touch()
    outcome = invoke("doctor", "--data", str(tmp_path / folder), "--json")
    assert outcome.code == ExitCode.FAILED
    assert findings(outcome.out)["data folder"][0] == "failed"


def test_secrets_are_not_shown(
    walls: list[Wall], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSULA_ADMIN_KEY", "insadm_" + "s" * 40)
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert findings(outcome.out)["INSULA_ADMIN_KEY"] == ("ok", "set")
    assert "ssss" not in outcome.out


def test_a_database_on_a_server(
    walls: list[Wall],
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
) -> None:
    monkeypatch.setenv("INSULA_DATABASE_URL", postgres_url.replace("insula@", "insula:s3cret@"))
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert outcome.code == ExitCode.OK
    verdict, detail = findings(outcome.out)["database"]
    assert verdict == "ok"
    assert "PostgreSQL" in detail
    assert "empty" in detail
    monkeypatch.setenv("INSULA_DATABASE_URL", postgres_url.replace("insula@", "x:s3cret@"))
    missing = invoke("doctor", "--data", str(tmp_path), "--json")
    assert missing.code == ExitCode.FAILED
    assert findings(missing.out)["database"][0] == "failed"
    assert 'role "x" does not exist' in findings(missing.out)["database"][1]
    assert "s3cret" not in outcome.out + outcome.err + missing.out + missing.err


def test_what_carries_messages_between_nodes(
    walls: list[Wall],
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
) -> None:
    monkeypatch.setenv("INSULA_DATABASE_URL", postgres_url)
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    verdict, detail = findings(outcome.out)["cluster"]
    assert verdict == "ok"
    assert "INSULA_CLUSTER_URL=database" in detail
    monkeypatch.setenv("INSULA_CLUSTER_URL", "database")
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    found = findings(outcome.out)
    assert found["cluster"] == ("ok", "PostgreSQL carries messages between nodes")
    assert found["INSULA_CLUSTER_URL"] == ("ok", "set")
    monkeypatch.setattr(examined_cluster, "_ANSWERS_WITHIN", 0.3)
    for name, scheme in (("PostgreSQL", "postgresql"), ("NATS", "nats"), ("Redis", "redis")):
        monkeypatch.setenv("INSULA_CLUSTER_URL", f"{scheme}://a:s3cret@127.0.0.1:1/x")
        outcome = invoke("doctor", "--data", str(tmp_path), "--json")
        assert outcome.code == ExitCode.OK  # a node starts without it
        verdict, detail = findings(outcome.out)["cluster"]
        assert verdict == "warning"
        assert detail.startswith(f"{name}: ")
        assert "s3cret" not in outcome.out + outcome.err
    monkeypatch.setenv("INSULA_CLUSTER_URL", "postgresql://a:s3cret@:x:y/")
    outcome = invoke("doctor", "--data", str(tmp_path), "--json")
    assert findings(outcome.out)["cluster"][0] == "failed"
    assert "s3cret" not in outcome.out + outcome.err
