"""``insula db backup`` and ``check`` beside a server that works: what they see is one moment."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from insula.cli.main import application
from tests.runs.platform import Platform, code, open_platform


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    found = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    monkeypatch.delenv("INSULA_DATABASE_URL", raising=False)
    if found is not None:
        monkeypatch.setenv("INSULA_DATABASE_URL", found)
    return found


def db(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(application, ["db", *words, "--json"])
    return result.exit_code, result.stdout


async def _work(platform: Platform, workflow_id: str, stop: asyncio.Event) -> int:
    count = 0
    while not stop.is_set():
        await platform.acme.run(workflow_id, input={"n": count})
        count += 1
    return count


async def test_a_backup_beside_a_working_server_is_whole(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {} if url is None else {"database_url": url}
    stop = asyncio.Event()
    async with open_platform(tmp_path / "data", **given) as platform:
        made = await platform.acme.make(code("one", "return input", "two"), code("two", "return 2"))
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(_work(platform, made, stop)) for _ in range(4)]
            data = ["--data", str(tmp_path / "data")]
            saved = await asyncio.to_thread(db, "backup", str(tmp_path / "backup"), *data)
            checked = await asyncio.to_thread(db, "check", *data)
            stop.set()
        assert sum(worker.result() for worker in workers) > 0
    assert saved[0] == 0
    assert checked[0] == 0, checked[1]
    monkeypatch.delenv("INSULA_DATABASE_URL", raising=False)
    new = ["--data", str(tmp_path / "new")]
    put_back = await asyncio.to_thread(db, "restore", str(tmp_path / "backup"), *new)
    assert json.loads(put_back[1]) == json.loads(saved[1])
    assert (await asyncio.to_thread(db, "check", *new))[0] == 0
