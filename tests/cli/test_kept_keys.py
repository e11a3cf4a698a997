"""What is kept in a data folder: found again, and private."""

from pathlib import Path

import pytest

from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.kept_keys import KeptApp, admin_key, find_key, keep, read_server

ACME = KeptApp("app_1", "Acme", "ins_acme")
GLOBEX = KeptApp("app_2", "Globex", "ins_globex")


def test_the_first_app_is_used_unless_another_is_named(tmp_path: Path) -> None:
    keep(tmp_path, ACME)
    keep(tmp_path, GLOBEX)
    assert find_key(tmp_path, None) == "ins_acme"
    assert find_key(tmp_path, "Globex") == find_key(tmp_path, "app_2") == "ins_globex"


def test_what_is_kept_is_private(tmp_path: Path) -> None:
    keep(tmp_path, ACME)
    admin_key(tmp_path)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "cli.json": 0o600,
        "admin.key": 0o600,
    }


def test_no_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        find_key(tmp_path, None)
    assert caught.value.code == ExitCode.NOT_ALLOWED
    assert "apps create" in (caught.value.hint or "")


def test_a_name_that_two_apps_have_is_refused(tmp_path: Path) -> None:
    keep(tmp_path, ACME)
    keep(tmp_path, KeptApp("app_3", "Acme", "ins_other"))
    with pytest.raises(CommandFailed, match="2 apps"):
        find_key(tmp_path, "Acme")


def test_the_admin_key_is_made_once_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSULA_ADMIN_KEY", raising=False)
    made = admin_key(tmp_path)
    assert len(made) > 40
    assert admin_key(tmp_path) == made
    monkeypatch.setenv("INSULA_ADMIN_KEY", "insadm_other")
    assert admin_key(tmp_path) == "insadm_other"


def test_damaged_files_do_not_crash(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text("{")
    (tmp_path / "cli.json").write_text("[]")
    assert read_server(tmp_path) is None
    with pytest.raises(CommandFailed, match="damaged"):
        find_key(tmp_path, None)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_file_without_an_admin_key_is_named(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSULA_ADMIN_KEY", raising=False)
    (tmp_path / "admin.key").write_bytes(content)
    with pytest.raises(CommandFailed, match="holds no key"):
        admin_key(tmp_path)
