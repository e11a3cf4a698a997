"""The walls stand, seen by native code inside; without the required ones the suite fails."""

import tempfile

import pytest

from insula.adapters.sandbox import walls
from insula.engine.ports import Lane


async def test_the_required_walls_stand(lane: Lane) -> None:
    found = {wall.name: wall for wall in await walls.inspect(lane)}
    for name in walls.REQUIRED:
        assert found[name].standing, found[name]
    assert found["all together"].standing, found["all together"]


async def test_native_code_reaches_nothing(lane: Lane) -> None:
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as database:
        report = (await walls.probe(lane, database.name))["everything"]
    tried = {attempt.name: attempt for attempt in report}
    for name in (
        "read a file",
        "write a file",
        "read the environment",
        "read the server's environment",
        "open a socket",
        "reach the loopback",
        "fork",
        "run a program",
        "signal the server",
        "trace the server",
        "read the server's memory",
        "set up a ring",
    ):
        assert tried[name].stopped, tried[name]


async def test_landlock_stands_without_seccomp(lane: Lane) -> None:
    report = {attempt.name: attempt for attempt in (await walls.probe(lane))["landlock"]}
    assert not report["leave the filter"].stopped  # seccomp is really not there
    assert report["read a file"].detail == "EACCES"


async def test_a_wall_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = walls._JUDGED | {"landlock": (("landlock", "seccomp", "limits"), walls._FILES)}
    monkeypatch.setattr(walls, "_JUDGED", everything)
    found = {wall.name: wall for wall in await walls.inspect()}
    assert not found["landlock"].standing
    assert "read a file: it went through" in found["landlock"].detail
