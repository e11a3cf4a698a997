"""Work that ends with the client who waits for it."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from insula.errors import BadInput
from insula.web import incoming
from insula.web.incoming import while_present


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_PATIENCE", 0.0)


async def stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("never")


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
