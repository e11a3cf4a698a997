"""Tasks that stop together."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from tests.engine.stage import settled

from insula.engine.crew import Crew


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Workers:
    """Work that waits to be let go and says how it ended."""

    def __init__(self) -> None:
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told: list[str] = []

    async def wait(self, name: str) -> None:
        try:
            await asyncio.shield(self.gate)
        except asyncio.CancelledError:
            self.told.append(f"{name} cancelled")
            raise
        self.told.append(f"{name} done")

    async def fail(self, error: Exception) -> None:
        await asyncio.shield(self.gate)
        raise error


async def test_it_ends_when_all_have_ended() -> None:
    crew, workers = Crew(), Workers()
    crew.start(workers.wait("a"))
    crew.start(workers.wait("b"))
    finishing = asyncio.create_task(crew.finish())
    await settled()
    assert not finishing.done()
    workers.gate.set_result(None)
    await finishing
    assert workers.told == ["a done", "b done"]
    assert not crew.stopping
    assert not crew.cancelled
    assert not crew.errors


async def test_an_error_stops_the_others_and_is_kept() -> None:
    crew, workers, others = Crew(), Workers(), Workers()
    crew.start(others.wait("a"))
    crew.start(workers.fail(ValueError("x")))
    finishing = asyncio.create_task(crew.finish())
    await settled()
    workers.gate.set_result(None)
    await finishing
    assert others.told == ["a cancelled"]
    assert [type(error) for error in crew.errors] == [ValueError]
    assert crew.stopping
    assert not crew.cancelled
    assert finishing.cancelling() == 0


async def test_a_cancel_from_outside_stops_all_and_is_noted() -> None:
    crew, workers = Crew(), Workers()
    crew.start(workers.wait("a"))
    finishing = asyncio.create_task(crew.finish())
    await settled()
    finishing.cancel()
    await finishing
    assert workers.told == ["a cancelled"]
    assert crew.cancelled
    assert finishing.cancelling() == 1


async def test_a_cancel_while_it_is_stopping_is_noted_too_and_disturbs_nobody() -> None:
    crew, cleaning = Crew(), asyncio.get_running_loop().create_future()
    interrupted = 0

    async def slow_to_stop() -> None:
        nonlocal interrupted
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            try:
                await asyncio.shield(cleaning)
            except asyncio.CancelledError:
                interrupted += 1

    crew.start(slow_to_stop())
    finishing = asyncio.create_task(crew.finish())
    await settled()
    crew.stop()
    await settled()
    finishing.cancel()
    await settled()
    assert not finishing.done()
    cleaning.set_result(None)
    await finishing
    assert crew.cancelled
    assert interrupted == 0


async def test_nothing_begins_in_a_crew_that_is_stopping() -> None:
    crew, workers = Crew(), Workers()
    crew.check()
    crew.start(workers.wait("a"))  # cancelled before its first step
    crew.stop()
    crew.start(workers.wait("b"))  # never started
    await crew.finish()
    assert workers.told == []
    with pytest.raises(asyncio.CancelledError):
        crew.check()


async def test_who_asks_for_the_stop_goes_on() -> None:
    crew, workers, told = Crew(), Workers(), []

    async def asks() -> None:
        crew.stop()
        await asyncio.sleep(0)
        told.append("went on")

    crew.start(workers.wait("a"))
    crew.start(asks())
    await crew.finish()
    assert told == ["went on"]


async def test_a_task_that_is_cancelled_by_itself_stops_all() -> None:
    crew, workers = Crew(), Workers()
    own: list[asyncio.Task[None] | None] = []

    async def alone() -> None:
        own.append(asyncio.current_task())
        await asyncio.get_running_loop().create_future()

    crew.start(alone())
    crew.start(workers.wait("a"))
    finishing = asyncio.create_task(crew.finish())
    await settled()
    assert own[0] is not None
    own[0].cancel()
    await finishing
    assert workers.told == ["a cancelled"]
    assert crew.cancelled


async def test_what_a_stopped_task_held_goes_with_it(no_collector: None) -> None:
    crew, held = Crew(), []

    async def holds() -> None:
        workers = Workers()
        held.append(weakref.ref(workers))
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:  # both know their task
            group.create_task(workers.wait("a"))

    crew.start(holds())
    await settled()
    crew.stop()
    await crew.finish()
    assert [found() for found in held] == [None]
