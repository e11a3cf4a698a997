"""The systemd units: that systemd would take them, and what the sandbox needs of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, UNITS, seconds, unit

ANALYZE = shutil.which("systemd-analyze")

TEXT = r".+"
TIME = r"\d+(ms|s|m|h)?"
YES = r"yes|no"
UNIT_NAMES = r"([a-z@-]+\.(service|target)( |$))+"
PATHS = r"(/[\w%./-]+(:/[\w%./-]+)?( |$))+"
KNOWN = {
    "Unit": {
        "Description": TEXT,
        "Documentation": r"file:///\S+|https://\S+",
        "Wants": UNIT_NAMES,
        "After": UNIT_NAMES,
        "StartLimitIntervalSec": TIME,
    },
    "Service": {
        "Type": r"simple|exec|forking|oneshot|dbus|notify|idle",
        "User": r"[a-z_][a-z0-9_-]*",
        "Group": r"[a-z_][a-z0-9_-]*",
        "EnvironmentFile": PATHS,
        "ExecStart": r"/\S+( [\w%./:-]+)*",
        "StateDirectory": r"([\w%/-]+( |$))+",
        "StateDirectoryMode": r"0[0-7]{3}",
        "BindPaths": PATHS,
        "UMask": r"0[0-7]{3}",
        "KillMode": r"control-group|mixed|process|none",
        "KillSignal": r"SIG[A-Z]+",
        "TimeoutStopSec": TIME,
        "Restart": r"no|always|on-(success|failure|abnormal|abort|watchdog)",
        "RestartSec": TIME,
        "LimitNOFILE": r"\d+(:\d+)?",
        "TasksMax": r"\d+",
        "NoNewPrivileges": YES,
        "CapabilityBoundingSet": r"(~?CAP_\w+( |$))*",
        "AmbientCapabilities": r"(CAP_\w+( |$))*",
        "ProtectSystem": r"yes|no|full|strict",
        "ProtectHome": r"yes|no|read-only|tmpfs",
        "PrivateTmp": YES,
        "PrivateDevices": YES,
        "ProtectClock": YES,
        "ProtectControlGroups": YES,
        "ProtectHostname": YES,
        "ProtectKernelLogs": YES,
        "ProtectKernelModules": YES,
        "ProtectKernelTunables": YES,
        "RestrictNamespaces": r"yes|no|((cgroup|ipc|net|mnt|pid|user|uts)( |$))+",
        "RestrictRealtime": YES,
        "RestrictSUIDSGID": YES,
        "RestrictAddressFamilies": r"(~?AF_[A-Z0-9]+( |$))+",
        "LockPersonality": YES,
        "SystemCallArchitectures": r"native",
        "SystemCallFilter": r"~?((@[a-z-]+|[a-z0-9_]+)( |$))+",
        "SystemCallErrorNumber": r"E[A-Z]+",
    },
    "Install": {"WantedBy": UNIT_NAMES},
}
"""What systemd.unit, systemd.service, systemd.exec and systemd.kill say of what is used here."""


@pytest.mark.parametrize("name", UNITS)
def test_every_setting_is_one_of_systemd_s_and_has_a_value_of_its_kind(name: str) -> None:
    wrong = [
        f"[{section}] {setting}={value}"
        for section, settings in unit(name).items()
        for setting, values in settings.items()
        for value in values
        if not re.fullmatch(KNOWN.get(section, {}).get(setting, r"(?!)"), value)
    ]
    assert not wrong
    once = [values for settings in unit(name).values() for values in settings.values()]
    assert all(len(values) == 1 for values in once)


@pytest.mark.parametrize("name", UNITS)
def test_every_specifier_is_known(name: str) -> None:
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    assert set(re.findall(r"%.?", text)) == {"%i"}


def test_the_user_is_made() -> None:
    line = (DEPLOY / "systemd" / "sysusers.conf").read_text("utf-8").splitlines()[-1]
    assert re.fullmatch(r'u insula - "[^"]+" (/[\w/]+)', line)
    assert {unit(name)["Service"]["User"][0] for name in UNITS} == {"insula"}


if ANALYZE is not None:  # where systemd is installed it is asked itself

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
