"""What is stored and told together with a run's end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from tests.runs.platform import code, open_platform

from insula.engine.events import RunEnded
from insula.engine.state import RunState
from insula.errors import Unavailable
from insula.files.resolve import FileInputs
from insula.journal.log import RunLog
from insula.runs.execution import DEFECT
from insula.runs.rows import RunRow
from insula.workflows.resolve import Runnable


async def test_a_hook_stores_in_the_commit_of_the_end_and_is_told_afterwards(
    tmp_path: Path,
) -> None:
    seen: list[Any] = []

    def at_end(
        row: RunRow, state: RunState, ended: RunEnded, runnable: Runnable | None
    ) -> Callable[[Connection], None]:
        assert runnable is not None
        seen.append((ended.status, bytes(state.result or b"")))

        def unit(connection: Connection) -> None:
            query = text("SELECT status FROM runs WHERE id = :id")
            seen.append(connection.execute(query, {"id": row.id}).scalar_one())

        return unit

    async with open_platform(tmp_path) as platform:
        platform.services.at_end.append(at_end)
        platform.services.after_end.append(lambda row: seen.append(row.status))
        workflow = await platform.acme.make(code("a", "return 7"))
        # With its data erased in the same commit, the hook still had the result.
        await platform.acme.run(workflow, retention=0)
    assert seen == [("COMPLETED", b"7"), "COMPLETED", "COMPLETED"]


@pytest.mark.parametrize("error", [Unavailable("away"), OSError("broken")])
async def test_bytes_that_cannot_be_deleted_leave_the_end_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked: list[Any] = []
    dropped: list[Any] = []

    async def remove(_: FileInputs, files: Any) -> None:
        asked.append(files)
        raise error

    monkeypatch.setattr(FileInputs, "remove", remove)
    monkeypatch.setattr(RunLog, "drop", dropped.append)
    async with open_platform(tmp_path) as platform:
        workflow = await platform.acme.make(code("a", "return 7"))
        ended = await platform.acme.run(workflow, retention=0)
        await platform.idle()
    assert ended["status"] == "COMPLETED"
    assert (len(asked), dropped) == (1, [])


async def test_an_end_that_cannot_be_stored_is_that_of_a_failed_run(tmp_path: Path) -> None:
    told: list[str] = []

    def at_end(
        row: RunRow, state: RunState, ended: RunEnded, runnable: Runnable | None
    ) -> Callable[[Connection], None]:
        def unit(connection: Connection) -> None:
            told.append(ended.status)
            if ended.status == "COMPLETED" or row.identifier == "never":
                raise LookupError("no such thing")

        return unit

    async with open_platform(tmp_path) as platform:
        platform.services.at_end.append(at_end)
        workflow = await platform.acme.make(code("a", "return 7"))
        for identifier in ("once", "never"):
            ended = await platform.acme.run(workflow, identifier=identifier, verbose="all")
            assert (ended["status"], ended["error"]) == ("FAILED", DEFECT)
            assert ended["output"]["a"]["status"] == "COMPLETED"
    assert set(told) == {"COMPLETED", "FAILED"}
