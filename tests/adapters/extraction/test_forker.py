"""Readers: forked by one zygote, one for each document, killed and gone when nobody listens."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import pytest
from tests.acceptance.processes import alive
from tests.adapters.extraction import documents
from tests.adapters.extraction.readings import (
    LIMITS,
    children,
    given,
    order,
    read_by,
    readers,
    zygotes,
)

from insula.adapters.extraction import extractor as module
from insula.adapters.extraction.extractor import Extractor
from insula.adapters.extraction.messages import Done, Message
from insula.errors import Unavailable

LONG = documents.pdf(*[[(50.0, 800.0, 20.0, "Report")]] * 100)


@pytest.fixture
async def extractor() -> AsyncIterator[Extractor]:
    async with Extractor(LIMITS) as opened:
        yield opened


@asynccontextmanager
async def reading(extractor: Extractor) -> AsyncIterator[asyncio.Task[None]]:
    """A long document is being read, in a task, while the block runs."""
    begun = asyncio.Event()

    async def work() -> None:
        asked = order("pdf", len(LONG), images=True)
        async with extractor.read(asked, given(LONG)) as messages:
            async for _ in messages:
                begun.set()

    task = asyncio.create_task(work())
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=30)
    yield task
    for each in (task, waiting):
        each.cancel()
    await asyncio.wait([task, waiting])


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_each_document_has_a_reader_of_its_own_from_one_zygote(extractor) -> None:
    await read_by(extractor, "text", b"a")
    (zygote,) = zygotes()
    held = open_descriptors()
    assert not children(zygote)
    await read_by(extractor, "pdf", documents.pdf([]))
    async with reading(extractor):
        (reader,) = readers()
        assert reader in children(zygote)
    assert zygotes() == [zygote]
    assert (readers(), open_descriptors()) == ([], held)


async def test_a_document_is_had_only_by_those_that_have_a_place(extractor) -> None:
    had, most = 0, 0

    @asynccontextmanager
    async def counted() -> AsyncIterator[BinaryIO]:
        nonlocal had, most
        async with given(b"a") as file:
            had += 1
            most = max(most, had)
            yield file
            had -= 1

    async def read() -> Message:
        async with extractor.read(order("text", 1), counted()) as messages:
            return [message async for message in messages][-1]

    ends = await asyncio.gather(*[read() for _ in range(8)])
    assert all(isinstance(end, Done) for end in ends)
    assert (had, most) == (0, 2)


async def test_readers_stand_back(extractor) -> None:
    async with reading(extractor):
        (reader,) = readers()
        assert os.getpriority(os.PRIO_PROCESS, reader) == os.getpriority(os.PRIO_PROCESS, 0) + 10
        assert os.sched_getscheduler(reader) == os.SCHED_BATCH
        assert os.getsid(reader) == os.getsid(0)  # a niceness counts within a session
        assert os.getpgid(reader) != os.getpgid(0)  # the terminal's interrupt is not for it


async def test_a_cancel_kills_the_reader(extractor) -> None:
    async with reading(extractor) as task:
        (reader,) = readers()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reader not in readers()


async def test_a_reader_dies_with_its_zygote_which_is_not_the_documents_fault(extractor) -> None:
    async with reading(extractor) as task:
        (zygote,), (reader,) = zygotes(), readers()
        os.kill(zygote, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await task
        assert not alive(reader)
    assert isinstance((await read_by(extractor, "text", b"a"))[-1], Done)
    assert zygotes() != [zygote]


async def test_a_cancel_before_the_birth_leaves_nothing(extractor) -> None:
    await read_by(extractor, "text", b"a")
    held = open_descriptors()
    for steps in range(1, 12):
        task = asyncio.create_task(read_by(extractor, "text", b"a"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await read_by(extractor, "text", b"a")  # those before it have been born by now, and ended
    async with asyncio.timeout(10):
        while readers() or open_descriptors() != held:  # noqa: ASYNC110  # the kernel tells nobody
            await asyncio.sleep(0.01)


async def test_the_zygote_rests_when_there_is_nothing_to_read(extractor, monkeypatch) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    await read_by(extractor, "text", b"a")
    async with asyncio.timeout(10):
        while zygotes():  # noqa: ASYNC110  # it leaves by itself
            await asyncio.sleep(0.01)
    assert isinstance((await read_by(extractor, "text", b"a"))[-1], Done)


async def test_one_that_cannot_start_says_so(extractor, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="cannot be started"):
        await read_by(extractor, "text", b"a")
    monkeypatch.undo()
    assert isinstance((await read_by(extractor, "text", b"a"))[-1], Done)
