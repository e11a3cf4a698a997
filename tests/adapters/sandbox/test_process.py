"""What a worker that was taken over may send: nothing of it is believed."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator

import msgspec
import pytest

from insula.adapters.sandbox.conversation import Conversation
from insula.adapters.sandbox.frames import (
    Failed,
    Kind,
    Ready,
    Request,
    Result,
    frame,
)
from insula.adapters.sandbox.process import Worker
from insula.engine.failures import StepFailure
from insula.engine.ports import Evaluated

from .conftest import activity, evaluation


class Impostor:
    """A real process that only sleeps, and the worker's end of its socket in our hands."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.ends: list[Worker] = []
        descriptor = os.pidfd_open(self.process.pid)
        self.worker = Worker(
            "quickjs", self.process.pid, descriptor, ours, lambda _: None, self.ends.append
        )

    async def answers(self, *frames: bytes, waits: bool = False) -> Evaluated:
        conversation = Conversation(
            self.worker, evaluation("1", waits=waits), activity(), 1024 * 1024
        )
        task = asyncio.ensure_future(conversation.run())
        await asyncio.sleep(0)
        for data in frames:
            sending = asyncio.get_running_loop().sock_sendall(self.theirs, data)
            async with asyncio.timeout(5):
                # a worker that is killed for a part of it does not read the rest
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    await sending
        async with asyncio.timeout(5):
            return await task


@pytest.fixture
async def impostor() -> AsyncIterator[Impostor]:
    found = Impostor()
    yield found
    found.worker.kill()
    await found.worker.death
    found.theirs.close()
    found.process.wait()


def result(*outputs: bytes | None, logs: bytes | None = None) -> bytes:
    return frame(Kind.RESULT, Result(list(outputs), logs, False))


def requests(*items: Request) -> bytes:
    return frame(Kind.REQUESTS, msgspec.json.encode(list(items)))


async def test_an_honest_answer_is_taken(impostor: Impostor) -> None:
    done = await impostor.answers(
        result(b'{"a":1}', logs=b'[{"level":"info","time":1,"args":[1]}]')
    )
    assert bytes(done.outputs[0] or b"") == b'{"a":1}'


LIES = {
    "no frame at all": b"\xff" * 64,
    "a giant length": struct.pack("<IB", 2**32 - 1, Kind.RESULT),
    "over the limits": frame(Kind.RESULT, b"x" * 300_000),
    "an unknown kind": frame(99, b""),  # type: ignore[arg-type]  # on purpose
    "a server's kind": frame(Kind.RUN, b""),
    "no MessagePack": frame(Kind.RESULT, b"\xc1\xc1"),
    "nested MessagePack": frame(Kind.RESULT, b"\x91" * 60_000),
    "wrong types": frame(Kind.RESULT, [1, 2, 3]),
    "too many outputs": result(b"1", b"2"),
    "too few outputs": result(),
    "no JSON": result(b"{"),
    "two values": result(b"1 2"),
    "no UTF-8": result(b'"\xff"'),
    "a lone surrogate": result(b'"\\ud800"'),
    "a raw surrogate": result(b'"\xed\xa0\x80"'),
    "not a number": result(b"NaN"),
    "an endless number": result(b"1e999"),
    "a number too long": result(b"9" * 5_000),
    "two levels out": result(b"1],[2"),
    "a list without its ends": result(b"1,2"),
    "an empty output": result(b""),
    "large outputs": result(b'"' + b"x" * 65_000 + b'"', logs=None) + result(b"1"),
    "an output over its limit": result(b'"' + b"x" * 70_000 + b'"'),
    "logs that are none": result(b"1", logs=b'{"a":1}'),
    "logs of another shape": result(b"1", logs=b'[{"level":1}]'),
    "logs over their limit": result(b"1", logs=b"[" + b" " * 20_000 + b"]"),
    "an unknown code": frame(Kind.FAILED, ["cancelled", 0, "", "", 0, None, False]),
    "a long message": frame(Kind.FAILED, Failed("script", 0, "x" * 5_000, "", 0, None, False)),
    "requests unasked": requests(Request(1, "sleep")),
    "ready again": frame(Kind.READY, Ready([], 1)) * 2,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_lie_kills_the_liar(impostor: Impostor, lie: bytes) -> None:
    if lie == LIES["large outputs"]:
        done = await impostor.answers(lie)
        assert done.outputs[0] is not None
        async with asyncio.timeout(5):
            await impostor.worker.death  # for the second answer
        return
    with pytest.raises(StepFailure) as caught:
        await impostor.answers(lie)
    assert caught.value.code == "engine_crash"
    assert impostor.worker.gone
    assert impostor.ends == [impostor.worker]


async def test_a_deep_output_is_the_scripts_failure(impostor: Impostor) -> None:
    with pytest.raises(StepFailure, match="nests too deeply") as caught:
        await impostor.answers(result(b"[" * 900 + b"]" * 900))
    assert caught.value.code == "script"


REQUEST_LIES = {
    "no JSON": frame(Kind.REQUESTS, b"{"),
    "wrong types": frame(Kind.REQUESTS, b'[{"id":"1","kind":"sleep"}]'),
    "an unknown request": frame(Kind.REQUESTS, b'[{"id":1,"kind":"exec"}]'),
    "a sleep into the past": frame(Kind.REQUESTS, b'[{"id":1,"kind":"sleep","milliseconds":-1}]'),
    "an endless sleep": frame(Kind.REQUESTS, b'[{"id":1,"kind":"sleep","milliseconds":1e300}]'),
    "the same sleep twice": requests(
        Request(1, "sleep", milliseconds=9e4), Request(1, "sleep", milliseconds=9e4)
    ),
    "too many": b"".join(
        requests(*(Request(i, "sleep", milliseconds=9e4) for i in range(n, n + 100)))
        for n in range(0, 1_100, 100)
    ),
}


@pytest.mark.parametrize("lie", REQUEST_LIES.values(), ids=REQUEST_LIES.keys())
async def test_a_false_request_kills_too(impostor: Impostor, lie: bytes) -> None:
    with pytest.raises(StepFailure) as caught:
        await impostor.answers(lie, waits=True)
    assert caught.value.code == "engine_crash"
    assert impostor.worker.gone


async def test_hanging_up_is_death(impostor: Impostor) -> None:
    impostor.theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(StepFailure) as caught:
        await impostor.answers()
    assert caught.value.code == "engine_crash"
    assert impostor.worker.gone


async def test_an_idle_worker_that_speaks_is_killed(impostor: Impostor) -> None:
    impostor.theirs.sendall(frame(Kind.READY, Ready([], 1)))
    impostor.theirs.sendall(result(b"1"))
    async with asyncio.timeout(5):
        await impostor.worker.death
    assert impostor.worker.killed
