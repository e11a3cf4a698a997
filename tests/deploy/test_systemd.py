"""The systemd units: what systemd itself says of them, and what the sandbox needs of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, UNITS, seconds, unit

ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    assert ANALYZE is not None
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    # The program and its user are not installed here.
    text = text.replace("/opt/insula/bin/insula", "/bin/true")
    text = re.sub(r"^(User|Group)=insula$", r"\1=daemon", text, flags=re.MULTILINE)
    path = tmp_path / name.replace("@", "@8081")
    path.write_text(text)
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert not said


@pytest.mark.parametrize("name", UNITS)
def test_it_starts_the_product_in_a_folder_of_its_own(name: str) -> None:
    service = unit(name)["Service"]
    program, verb, *options = service["ExecStart"][0].split()
    assert program == "/opt/insula/bin/insula"
    assert verb == ("worker" if "worker" in name else "serve")
    folder = options[options.index("--data") + 1]
    assert "%i" in folder
    own, files = service["StateDirectory"][0].split()
    assert folder == f"/var/lib/{own}"
    assert service["BindPaths"] == [f"/var/lib/{files}:{folder}/files"]


@pytest.mark.parametrize("name", UNITS)
def test_a_stop_drains_first_and_kills_what_is_left(name: str) -> None:
    service = unit(name)["Service"]
    assert service["KillMode"] == ["mixed"]
    assert service["KillSignal"] == ["SIGTERM"]
    text = (DEPLOY / "insula.env.example").read_text("utf-8")
    drain = re.search(r"INSULA_DRAIN_SECONDS=(\d+)", text)
    assert drain
    assert seconds(service["TimeoutStopSec"][0]) >= int(drain.group(1)) + 5 + 5
    assert service["Restart"] == ["always"]


@pytest.mark.parametrize("name", UNITS)
def test_hardening_leaves_the_sandbox_what_it_needs(name: str) -> None:
    service = unit(name)["Service"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    assert set(service["RestrictNamespaces"][0].split()) == {"user", "net"}
    assert "MemoryDenyWriteExecute" not in service
    allowed = service["SystemCallFilter"][0].split()
    assert {"@system-service", "seccomp", "landlock_restrict_self"} <= set(allowed)


def test_both_units_are_hardened_alike() -> None:
    first, second = (unit(name)["Service"] for name in UNITS)
    differ = {key for key in first if first[key] != second[key]}
    assert differ == {"ExecStart", "StateDirectory", "BindPaths"}
    assert set(first) == set(second)
