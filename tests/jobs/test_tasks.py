"""Tasks with an owner, and cancels that were swallowed."""

import asyncio

import pytest
from structlog.testing import capture_logs

from insula.jobs.tasks import Tasks, check_cancelled
from insula.kit.tasks import cancels


async def test_there_are_at_most_so_many_and_none_outlives_its_owner() -> None:
    tasks = Tasks(2)
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    assert [tasks.start(wait(number)) for number in range(3)] == [True, True, False]
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(ended) == [0, 1]
    assert len(tasks) == 0
    assert not tasks.start(wait(4))


async def test_one_that_raises_ends_alone() -> None:
    tasks = Tasks(2)
    other = asyncio.Event()

    async def fail() -> None:
        raise LookupError

    async def wait() -> None:
        await other.wait()

    with capture_logs() as logs:
        assert tasks.start(fail())
        assert tasks.start(wait())
        await asyncio.sleep(0)  # it fails
        await asyncio.sleep(0)  # it is let go
    assert len(tasks) == 1
    assert [log["event"] for log in logs] == ["task.failed"]
    other.set()
    await tasks.close()


async def test_a_swallowed_cancel_comes_out() -> None:
    reached = asyncio.Event()

    async def swallow() -> None:
        before = cancels()
        reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            check_cancelled(before + 1)  # one is known of
        check_cancelled(before)
        pytest.fail("the cancel was lost")

    task = asyncio.create_task(swallow())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    check_cancelled()
