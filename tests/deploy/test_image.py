"""What the image does, as plain processes: the package is built from the files that are copied, and
nothing else; the command of the image serves; its health check tells.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.harness import environment
from tests.acceptance.processes import wait_until
from tests.deploy.files import ROOT
from tests.deploy.test_containerfile import JOINED, LINES, copied

STARTS = 60.0


def instruction(word: str) -> str:
    """Return what the last instruction of this name is given."""
    return [line for line in LINES if line.startswith(f"{word} ")][-1].removeprefix(f"{word} ")


@dataclass(frozen=True)
class Image:
    """An installation as the image has it: its ``bin``, and what its variables say."""

    bin: Path
    variables: dict[str, str]

    def run(self, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return environment({**self.variables, "PATH": path, **more})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Build as the first stage does. The locked dependencies are those of this environment."""
    place = tmp_path_factory.mktemp("image")
    source = place / "src"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = place.glob("*.whl")
    prefix = place / "opt"
    venv.create(prefix, with_pip=False, symlinks=True)
    packages = next(prefix.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "locked.pth").write_text(sysconfig.get_path("purelib"))
    script = prefix / "bin" / "insula"
    script.write_text(
        f"#!{prefix}/bin/python\nimport sys\nfrom insula.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    given = dict(word.split("=", 1) for word in shlex.split(instruction("ENV")) if "=" in word)
    data = place / "data"
    variables = {
        name: value.replace("/data", str(data)) for name, value in given.items() if name != "PATH"
    }
    return Image(prefix / "bin", variables)


def test_the_package_is_whole(image: Image) -> None:
    """Its own code and its migrations are there, and it is that which is used."""
    say = "import insula, sys; print(insula.__file__)"
    where = Path(image.run([str(image.bin / "python"), "-c", say]).stdout.strip()).parent
    assert where.is_relative_to(image.bin.parent)
    kept = {
        path.relative_to(ROOT / "src" / "insula")
        for path in (ROOT / "src" / "insula").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in kept if not (where / path).exists()} == set()


@pytest.fixture(scope="module")
def serving(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The image's command, in an empty volume; on a free port of the loopback instead of 8080."""
    folder = tmp_path_factory.mktemp("volume")
    command = [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]
    own = {"INSULA_PORT": "0", "INSULA_HOST": "127.0.0.1", "INSULA_DATA_DIR": str(folder)}
    with (folder.parent / "image.log").open("wb") as log:
        process = subprocess.Popen(
            [str(image.bin / command[0]), *command[1:]],
            env=image.environment(**own),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    told = folder / "server.json"
    try:
        wait_until(lambda: told.exists() or process.poll() is not None, STARTS, "the start")
        assert process.poll() is None, (folder.parent / "image.log").read_text()
        yield int(json.loads(told.read_text())["address"].rpartition(":")[2])
        process.terminate()  # STOPSIGNAL
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_the_health_check_tells_what_serves_from_what_does_not(image: Image, serving: int) -> None:
    health = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", JOINED, re.MULTILINE)
    assert health
    command = json.loads(health.group(1))
    command[0] = str(image.bin / command[0])
    well = image.run(command, INSULA_PORT=str(serving))
    assert well.returncode == 0, well.stderr
    assert image.run(command, INSULA_PORT="1").returncode != 0


def test_it_stops_by_the_signal_that_it_names() -> None:
    assert instruction("STOPSIGNAL") == "SIGTERM"


def test_other_commands_run_by_the_same_entry(image: Image, tmp_path: Path) -> None:
    (entry,) = json.loads(instruction("ENTRYPOINT"))
    for words in (["worker", "--help"], ["doctor", "--help"]):
        done = image.run([str(image.bin / entry), *words], INSULA_DATA_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr


def test_the_folders_that_are_mounted_are_made_for_the_user() -> None:
    made = re.search(r"install -d -o (\w+) -g (\w+) -m 0700 (.+)$", JOINED, re.MULTILINE)
    assert made
    assert made.groups()[:2] == ("insula", "insula")
    # Volumes are mounted there: an empty one takes owner and mode from what the image has.
    assert set(made.group(3).split()) == {"/data", "/data/files"}
