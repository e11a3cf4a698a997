"""Bodies that come in fast enough, and work that ends with the client who waits for it."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from insula.errors import BadInput
from insula.web import incoming
from insula.web.incoming import Arriving, while_present


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_PATIENCE", 0.0)


async def stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("never")


class Link:
    """A client that takes some seconds for each piece of its body."""

    def __init__(self, seconds: float, size: int) -> None:
        self.now, self.seconds, self.size = 0.0, seconds, size

    async def receive(self) -> Message:
        self.now += self.seconds
        return {"type": "http.request", "body": bytes(self.size), "more_body": True}

    def arriving(self) -> Arriving:
        return Arriving(self.receive, 1000, lambda: self.now)


async def test_what_comes_slowly_comes_all_the_same() -> None:
    link = Link(seconds=50, size=50_000)
    arriving = link.arriving()
    for _ in range(40):
        await arriving.piece()
    assert link.now == 2000
    link.seconds = 59
    await arriving.piece()


@pytest.mark.parametrize("before", [0, 10_000_000])
async def test_what_drips_in_ends(before: int) -> None:
    link = Link(seconds=1, size=before)
    arriving = link.arriving()
    await arriving.piece()
    link.seconds, link.size = 21, 1
    for _ in range(3):
        await arriving.piece()
    with pytest.raises(BadInput, match="INSULA_BODY_RATE_MIN"):
        await arriving.piece()


async def test_what_stops_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "STALLED", 0.01)
    with pytest.raises(BadInput, match="stopped arriving"):
        await Arriving(stays, 1000).piece()


async def test_what_is_done_is_answered() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await while_present(stays, work()) == 7


async def test_what_fails_fails() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise BadInput("no")

    with pytest.raises(BadInput, match="no"):
        await while_present(stays, work())


async def test_the_work_has_ended_when_its_client_is_gone() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async def leaves() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await while_present(leaves, work())
    assert ended.is_set()


async def test_a_cancel_ends_the_work_too() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(while_present(stays, work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
