"""What a worker that was taken over may send: nothing of it is believed."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from insula.adapters.sandbox.conversation import TURN, Conversation
from insula.adapters.sandbox.frames import (
    HEADER,
    Failed,
    Kind,
    Ready,
    Request,
    Result,
    decode_answers,
    frame,
)
from insula.adapters.sandbox.process import Worker
from insula.engine.failures import StepFailure
from insula.engine.ports import Evaluated, Fetch, HttpRequest, HttpResponse, Limits
from insula.kit.turns import Turns

from .conftest import MIB, SMALL, activity, evaluation, until

PATIENT = replace(SMALL, wall=60)


class Impostor:
    """A real process that only sleeps, and the worker's end of its socket in our hands."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.ends: list[Worker] = []
        self.turns = Turns(TURN)
        descriptor = os.pidfd_open(self.process.pid)
        self.worker = Worker(
            "quickjs", self.process.pid, descriptor, ours, lambda _: None, self.ends.append
        )

    async def begins(
        self, waits: bool = False, fetch: Fetch | None = None, limits: Limits = SMALL
    ) -> "asyncio.Task[Evaluated]":
        wanted = evaluation("1", waits=waits, fetch=fetch, limits=limits)
        task = asyncio.ensure_future(
            Conversation(self.worker, wanted, activity(), 1024 * 1024, self.turns).run()
        )
        await asyncio.sleep(0)
        return task

    async def takes(self) -> tuple[int, bytes]:
        """Read one frame, as a worker would."""
        length, kind = HEADER.unpack(await self._read(HEADER.size))
        return kind, await self._read(length)

    async def _read(self, number: int) -> bytes:
        data = bytearray(number)
        rest = memoryview(data)
        while rest:
            rest = rest[await asyncio.get_running_loop().sock_recv_into(self.theirs, rest) :]
        return bytes(data)

    async def answers(self, *frames: bytes, waits: bool = False) -> Evaluated:
        task = await self.begins(waits)
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


class Fetched:
    """Answers of one MiB, given at once; ``urls`` says for what."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        self.urls.append(request.url)
        return HttpResponse(200, (), b"x" * MIB, request.url)


async def test_no_more_is_fetched_than_the_worker_takes(impostor: Impostor) -> None:
    fetched = Fetched()
    task = await impostor.begins(waits=True, fetch=fetched, limits=PATIENT)
    await impostor.takes()
    impostor.theirs.sendall(requests(*(Request(i, "fetch", f"http://{i}/") for i in range(100))))
    await until(lambda: len(fetched.urls) >= 16)
    kind, data = await impostor.takes()  # and so the next has its turn
    assert kind == Kind.ANSWERS
    await until(lambda: len(fetched.urls) >= 17)
    assert len(fetched.urls) == 17
    assert impostor.worker.unsent == 16
    for _ in range(99):
        _, more = await impostor.takes()
        data += more
        assert impostor.worker.unsent <= 16
    assert len(fetched.urls) == 100
    impostor.theirs.sendall(result(b"1"))
    assert (await task).outputs


async def test_answers_arrive_whole_and_in_order(impostor: Impostor) -> None:
    fetched = Fetched()
    task = await impostor.begins(waits=True, fetch=fetched, limits=PATIENT)
    await impostor.takes()
    impostor.theirs.sendall(requests(*(Request(i, "fetch", f"http://{i}/") for i in range(20))))
    for i in range(20):
        (answer,) = decode_answers((await impostor.takes())[1])
        assert (answer.id, answer.url, len(answer.body)) == (i, f"http://{i}/", MIB)
    impostor.theirs.sendall(result(b"1"))
    assert (await task).outputs


async def test_answers_that_are_not_taken_count_as_waiting(
    impostor: Impostor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones too, which need no turn: else they would pile up without end."""
    task = await impostor.begins(waits=True, limits=PATIENT)
    await impostor.takes()
    impostor.worker._end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    send, sent = impostor.worker.send, 0

    def counted(data: bytes) -> asyncio.Future[None]:
        nonlocal sent
        sent += len(decode_answers(data[HEADER.size :]))
        return send(data)

    monkeypatch.setattr(impostor.worker, "send", counted)
    for n in range(0, 5_000, 100):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            impostor.theirs.sendall(requests(*(Request(i, "sleep") for i in range(n, n + 100))))
        await until(lambda n=n: task.done() or sent == n + 100)
        if task.done():
            break
    with pytest.raises(StepFailure) as caught:
        async with asyncio.timeout(5):
            await task
    assert caught.value.code == "engine_crash"


async def test_what_waits_to_be_sent_is_memory_of_the_code(impostor: Impostor) -> None:
    begun: list[str] = []

    async def never(request: HttpRequest) -> HttpResponse:
        begun.append(request.url)
        await asyncio.Event().wait()
        raise AssertionError

    task = await impostor.begins(waits=True, fetch=never, limits=PATIENT)
    await impostor.takes()
    body = "x" * (MIB - 100)
    for i in range(40):  # of 32 MiB
        data = requests(Request(i, "fetch", "http://x/", body=body))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await asyncio.get_running_loop().sock_sendall(impostor.theirs, data)
    with pytest.raises(StepFailure) as caught:
        await task
    assert caught.value.code == "limit_memory"
    assert len(begun) == 16


async def test_nothing_more_is_fetched_for_a_dead_worker(impostor: Impostor) -> None:
    fetched = Fetched()
    task = await impostor.begins(waits=True, fetch=fetched, limits=PATIENT)
    await impostor.takes()
    impostor.theirs.sendall(requests(*(Request(i, "fetch", f"http://{i}/") for i in range(100))))
    await until(lambda: len(fetched.urls) >= 16)
    impostor.theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(StepFailure) as caught:
        await task
    assert caught.value.code == "engine_crash"
    assert len(fetched.urls) == 16
    assert impostor.worker.unsent == 0


async def test_requests_are_begun_so_many_a_turn_of_the_loop(impostor: Impostor) -> None:
    begun, turn = Counter[int](), 0

    async def fetch(request: HttpRequest) -> HttpResponse:
        begun[turn] += 1
        return HttpResponse(200, (), b"", request.url)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    task = await impostor.begins(waits=True, fetch=fetch, limits=PATIENT)
    await impostor.takes()
    impostor.theirs.sendall(requests(*(Request(i, "fetch", f"http://{i}/") for i in range(500))))
    for _ in range(500):
        await impostor.takes()
    impostor.theirs.sendall(result(b"1"))
    assert (await task).outputs
    counting.cancel()
    assert begun.total() == 500
    assert max(begun.values()) <= TURN


async def test_sleeps_that_end_together_are_answered_together(impostor: Impostor) -> None:
    task = await impostor.begins(waits=True, limits=PATIENT)
    await impostor.takes()
    impostor.theirs.sendall(requests(*(Request(i, "sleep") for i in range(500))))
    answered, frames = 0, 0
    while answered < 500:
        _, data = await impostor.takes()
        answered += len(decode_answers(data))
        frames += 1
    assert frames <= 500 / TURN + 5
    impostor.theirs.sendall(result(b"1"))
    assert (await task).outputs


async def test_requests_of_one_evaluation_are_counted(impostor: Impostor) -> None:
    task = await impostor.begins(waits=True, limits=PATIENT)
    await impostor.takes()
    for n in range(10_000):
        impostor.theirs.sendall(requests(Request(n, "sleep")))
        await impostor.takes()
    assert not task.done()
    impostor.theirs.sendall(requests(Request(10_000, "sleep")))
    with pytest.raises(StepFailure) as caught:
        await task
    assert caught.value.code == "limit_requests"
    assert "10,000 requests" in caught.value.message
    assert impostor.worker.gone
