"""The deployment examples as data."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("insula@.service", "insula-worker@.service")


def compose() -> dict[str, Any]:
    """Return the compose file, with its anchors and merges resolved."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Return a systemd unit: by section and setting, every value it is given."""
    sections: dict[str, dict[str, list[str]]] = {}
    section = ""
    for number, line in enumerate((DEPLOY / "systemd" / name).read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading.group(1)
            sections[section] = {}
            continue
        setting, equals, value = line.partition("=")
        known = section and equals and re.fullmatch(r"[A-Z]\w+", setting)
        assert known, f"{name}:{number}: {line}"
        sections[section].setdefault(setting, []).append(value)
    return sections


def seconds(text: str) -> float:
    """Return a duration such as ``30s``, ``65m`` or ``30``."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h)?", text)
    assert found, text
    return int(found.group(1)) * {"ms": 0.001, None: 1, "s": 1, "m": 60, "h": 3600}[found.group(2)]


def environment_example() -> dict[str, str]:
    """Return every variable of the example, those in comments included."""
    text = (DEPLOY / "insula.env.example").read_text("utf-8")
    return dict(re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", text, re.MULTILINE))
