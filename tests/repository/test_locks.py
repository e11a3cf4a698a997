"""The lock files hold exactly what pyproject.toml asks for, every file of it pinned by its hash.

Nothing is fetched: what a locked package itself needs is read from the packages installed here.
"""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GROUPS = PROJECT["dependency-groups"]
LOCKS = {
    "requirements.lock": [*PROJECT["project"]["dependencies"], *GROUPS["build"]],
    "requirements-dev.lock": [
        *PROJECT["project"]["dependencies"],
        *GROUPS["build"],
        *GROUPS["dev"],
    ],
}
# A name, a version, perhaps a marker, and one hash at least.
ENTRY = re.compile(
    r"^([A-Za-z0-9_.-]+)==([^\s;]+)(?: ; [^\\\n]+)? \\\n(?:    --hash=sha256:\w+.*\n)+",
    re.MULTILINE,
)


def read_lock(name: str) -> dict[str, Version]:
    text = (ROOT / name).read_text("utf-8")
    pinned = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    entries = ENTRY.findall(text)
    assert len(entries) == len(pinned), "every line of a lock is a version with its hashes"
    return {canonicalize_name(name): Version(version) for name, version in entries}


def needs(name: str, extras: frozenset[str]) -> list[Requirement]:
    environments = [{"extra": extra} for extra in extras or {""}]
    return [
        requirement
        for requirement in map(Requirement, requires(name) or [])
        if requirement.marker is None
        or any(requirement.marker.evaluate(environment) for environment in environments)
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_what_the_project_asks_for(lock: str) -> None:
    locked = read_lock(lock)
    waiting = [Requirement(text) for text in LOCKS[lock]]
    seen: set[tuple[str, frozenset[str]]] = set()
    wrong = []
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        version = locked.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement} (locked: {version})")
        elif (visit := (name, frozenset(requirement.extras))) not in seen:
            seen.add(visit)
            waiting.extend(needs(*visit))
    assert not wrong, f"run `make lock`: {wrong}"


def test_one_version_of_each_in_both_locks() -> None:
    runtime, development = (read_lock(lock) for lock in LOCKS)
    assert runtime.items() <= development.items()


def test_the_locks_name_no_place() -> None:
    for lock in LOCKS:
        text = (ROOT / lock).read_text("utf-8")
        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text
