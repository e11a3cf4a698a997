"""The image: every file it copies is there and not ignored, and it runs as nobody in particular."""

import re
import tomllib

from tests.deploy.files import DEPLOY, ROOT

TEXT = (DEPLOY / "Containerfile").read_text("utf-8")
JOINED = re.sub(r"\\\n\s*", "", TEXT)
LINES = [line for line in JOINED.splitlines() if line.strip() and not line.startswith("#")]
STAGES = [line for line in LINES if line.startswith("FROM ")]
KNOWN = [
    "FROM",
    "RUN",
    "COPY",
    "ENV",
    "USER",
    "WORKDIR",
    "VOLUME",
    "EXPOSE",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "ENTRYPOINT",
    "CMD",
]


def test_every_line_is_an_instruction() -> None:
    assert not [line for line in LINES if line.split()[0] not in KNOWN]
    assert LINES[0].startswith("FROM ")


def copied() -> list[str]:
    sources = []
    for line in LINES:
        words = line.split()
        if words[0] == "COPY" and not words[1].startswith("--from="):
            sources += words[1:-1]
    return sources


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    assert copied()
    assert all((ROOT / name).exists() for name in copied())
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").splitlines()
    assert ignored[0] == "**"
    assert {name.removeprefix("!") for name in ignored if name.startswith("!")} == set(copied())


def test_stages_that_are_named_are_there() -> None:
    names = [stage.split()[-1] for stage in STAGES if " AS " in stage]
    assert re.findall(r"--from=(\w+)", TEXT) == names


def test_what_is_installed_is_what_is_locked() -> None:
    assert "--require-hashes -r requirements.lock" in TEXT
    assert "--no-deps" in TEXT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    locked = (ROOT / "requirements.lock").read_text("utf-8")
    assert f"{project['build-system']['requires'][0]}==" in locked


def test_its_python_is_one_that_the_package_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    least = tuple(int(part) for part in project["project"]["requires-python"][2:].split("."))
    for major, minor in re.findall(r"^FROM python:(\d+)\.(\d+)-slim", TEXT, re.MULTILINE):
        assert (int(major), int(minor)) >= least
    assert len({stage.split()[1] for stage in STAGES}) == 1


def test_it_ends_as_a_user_without_rights_and_starts_the_product() -> None:
    last = LINES[max(i for i, line in enumerate(LINES) if line.startswith("FROM ")) :]
    assert "USER insula" in last
    assert last.index("USER insula") < last.index('ENTRYPOINT ["insula"]')
    assert last[-1] == 'CMD ["serve"]'
    assert "INSULA_DATA_DIR=/data" in JOINED
    assert "VOLUME /data" in last
