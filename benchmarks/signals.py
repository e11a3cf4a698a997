"""What carries messages between nodes, side by side: questions, messages and hints between two of
them, in one process, over a broker of the loopback.

    python benchmarks/signals.py [COUNT]
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop
from tests import redis_server
from tests.nats import NatsServer, binary

from benchmarks.client import percentile
from benchmarks.databases import postgres
from insula.jobs.signals import NoAnswer
from insula.jobs.transport import Transport, open_transport

AT_ONCE = 50
_WITHIN = 30.0


async def measure(count: int) -> dict[str, dict[str, float]]:
    """Return the figures of each carrier."""
    found = {}
    async with AsyncExitStack() as stack:
        database = (await stack.enter_async_context(postgres())).create()
        for url in (database, _nats(stack), _redis(stack)):
            async with _node(url) as one, _node(url) as two:
                found[one.carrier] = await _figures(one, two, count)
    return found


def _nats(stack: AsyncExitStack) -> str:
    program = binary()
    if program is None:
        raise RuntimeError("no nats-server here: install the system's package")
    broker = NatsServer(program)
    stack.callback(broker.close)
    broker.start()
    return broker.url


def _redis(stack: AsyncExitStack) -> str:
    program = redis_server.binary()
    if program is None:
        raise RuntimeError("no redis-server here: install the system's package")
    broker = redis_server.RedisServer(program)
    stack.callback(broker.close)
    broker.start()
    return broker.url


@asynccontextmanager
async def _node(url: str) -> AsyncIterator[Transport]:
    async with open_transport(url, "bench") as transport:
        while not transport.signals.connected:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
        yield transport


async def _figures(one: Transport, two: Transport, count: int) -> dict[str, float]:
    found = await _questions(one, two, count)
    found |= await _messages(one, two, count)
    return found | await _hints(one, two, count)


async def _questions(one: Transport, two: Transport, count: int) -> dict[str, float]:
    async def answer(body: bytes) -> bytes:
        return body

    await two.signals.answer("echo", answer)
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        await one.signals.ask("echo", b"run_1", _WITHIN)
        took.append((time.perf_counter() - begun) * 1000)
    took.sort()

    async def many() -> None:
        for _ in range(count // AT_ONCE):
            await one.signals.ask("echo", b"run_1", _WITHIN)

    begun = time.perf_counter()
    await asyncio.gather(*(many() for _ in range(AT_ONCE)))
    rate = count // AT_ONCE * AT_ONCE / (time.perf_counter() - begun)
    begun = time.perf_counter()
    try:
        await one.signals.ask("nobody", b"", _WITHIN)
    except NoAnswer:
        nobody = (time.perf_counter() - begun) * 1000
    return {
        "question p50 ms": percentile(took, 0.5),
        "question p99 ms": percentile(took, 0.99),
        "questions/s": rate,
        "nobody answers ms": nobody,
    }


async def _messages(one: Transport, two: Transport, count: int) -> dict[str, float]:
    heard = asyncio.Event()
    left = 1

    def hear(_: bytes) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            heard.set()

    await two.signals.listen("run.one", hear)
    took = []
    for number in range(count):
        left = 1
        heard.clear()
        begun = time.perf_counter()
        one.signals.publish("run.one", b"%d" % number)
        await heard.wait()
        took.append((time.perf_counter() - begun) * 1000)
    took.sort()
    left = total = 8_000
    heard.clear()
    begun = time.perf_counter()
    for number in range(total):
        one.signals.publish("run.one", b"%d" % number)
    said = time.perf_counter() - begun
    await heard.wait()
    return {
        "publish to heard p50 ms": percentile(took, 0.5),
        "publish to heard p99 ms": percentile(took, 0.99),
        "publish, a call, us": said / total * 1e6,
        "heard/s": total / (time.perf_counter() - begun),
    }


async def _settled(body: bytes) -> bytes:
    return body


async def _hints(one: Transport, two: Transport, count: int) -> dict[str, float]:
    taken = asyncio.Event()
    left = 1

    async def take(_: str, __: str) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            taken.set()

    working = asyncio.create_task(two.jobs.work("run", lambda: True, take))
    took = []
    await one.jobs.offer("run", "app_1", "first")
    await taken.wait()
    for number in range(min(count, 500)):
        left = 1
        taken.clear()
        begun = time.perf_counter()
        await one.jobs.offer("run", "app_1", f"one_{number}")
        await taken.wait()
        took.append((time.perf_counter() - begun) * 1000)
    took.sort()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await one.signals.answer("settled", _settled)
    await two.signals.ask("settled", b"", _WITHIN)  # behind what it still asked for
    total = 900
    begun = time.perf_counter()
    for number in range(total):
        await one.jobs.offer("run", f"app_{number % 3}", f"many_{number}")
    offered = time.perf_counter() - begun
    left = total
    taken.clear()
    begun = time.perf_counter()
    working = asyncio.create_task(two.jobs.work("run", lambda: True, take))
    await taken.wait()
    rate = total / (time.perf_counter() - begun)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return {
        "hint p50 ms": percentile(took, 0.5),
        "hint p99 ms": percentile(took, 0.99),
        "offers/s": total / offered,
        "taken/s": rate,
    }


def main() -> None:
    """Print them."""
    found = uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000))
    names = list(next(iter(found.values())))
    print(f"{'':26}" + "".join(f"{carrier:>14}" for carrier in found))
    for name in names:
        print(f"{name:26}" + "".join(f"{figures[name]:14,.2f}" for figures in found.values()))


if __name__ == "__main__":
    main()
