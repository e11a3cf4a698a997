"""What the runner holds of a test that it is to drop: nothing, wherever that stood."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from insula.workflow_tests import runner
from insula.workflow_tests.rows import Underway


class OneWaits:
    """A database in which one test waits for its run."""

    async def read(self, query: Callable[..., Any]) -> Any:
        return [Underway("test_1", "flow_1", None, 0, None, None)], "", True


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_one_that_is_dropped_before_it_was_begun_may_be_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    async def begin(services: object, test_id: str) -> bool:
        begun.append(test_id)
        return False

    monkeypatch.setattr(runner, "begin", begin)
    services = SimpleNamespace(database=OneWaits(), draining=False, cluster=None)
    carrying = runner.TestRunner(cast(Any, services))
    async with asyncio.TaskGroup() as group:
        await carrying._round(group)
        await carrying.drop(["test_1"])
        await carrying._round(group)
    assert begun == ["test_1"]
