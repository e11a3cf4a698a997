"""What signals do between two nodes, whatever carries them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs
from tests.jobs.events import Heard, until
from tests.nats import NatsServer
from tests.redis_server import RedisServer, redis_server, redis_session

from insula.jobs.memory_signals import Exchange, MemorySignals
from insula.jobs.nats_link import NatsLink
from insula.jobs.nats_signals import NatsSignals
from insula.jobs.signals import MESSAGE_MAX, NoAnswer, Signals
from insula.jobs.transport import open_transport
from insula.jobs.wire_signals import WireSignals

__all__ = ["redis_server", "redis_session"]

Pair = tuple[Signals, Signals]
LONG = 10.0


async def over_nats(stack: AsyncExitStack, server: NatsServer, prefix: str) -> Signals:
    link = NatsLink([server.url], prefix)
    signals = NatsSignals(link, prefix)
    link.start()
    stack.push_async_callback(link.close)
    stack.push_async_callback(signals.close)
    await until(lambda: signals.connected)
    return signals


async def over_wire(stack: AsyncExitStack, url: str, name: str = "one") -> Signals:
    transport = await stack.enter_async_context(open_transport(url, name))
    await until(lambda: transport.signals.connected)
    return transport.signals


@pytest.fixture(params=["memory", "nats", "postgres", "redis"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            exchange = Exchange()
            nodes = (MemorySignals(exchange), MemorySignals(exchange))
            for node in nodes:
                stack.push_async_callback(node.close)
            yield nodes
        elif request.param == "postgres":
            url: str = request.getfixturevalue("tables_url")
            yield await over_wire(stack, url), await over_wire(stack, url)
        elif request.param == "redis":
            redis: RedisServer = request.getfixturevalue("redis_server")
            url, name = redis.url, redis.installation()
            yield await over_wire(stack, url, name), await over_wire(stack, url, name)
        else:
            server: NatsServer = request.getfixturevalue("nats_server")
            prefix = f"insula.{server.installation()}"
            yield (
                await over_nats(stack, server, prefix),
                await over_nats(stack, server, prefix),
            )


async def doubled(body: bytes) -> bytes:
    return body * 2


async def test_everyone_who_listens_hears_in_order(pair: Pair) -> None:
    here, there = Heard(), Heard()
    await pair[0].listen("run.one", here)
    await pair[1].listen("run.one", there)
    for number in range(100):
        pair[0].publish("run.one", b"%d" % number)
    assert await here.first(100) == await there.first(100) == [b"%d" % n for n in range(100)]
    assert pair[0].connected
    assert pair[0].lost == 0


async def test_other_subjects_are_not_heard(pair: Pair) -> None:
    heard = Heard()
    await pair[1].listen("run.one", heard)
    pair[0].publish("run.two", b"two")
    pair[0].publish("run.one", b"one")
    assert await heard.first(1) == [b"one"]


async def test_who_has_ended_hears_no_more(pair: Pair) -> None:
    ended, heard = Heard(), Heard()
    end = await pair[1].listen("run.one", ended)
    await pair[1].listen("run.one", heard)
    end()
    end()
    pair[0].publish("run.one", b"late")
    assert await heard.first(1) == [b"late"]
    assert ended.bodies == []


async def test_who_goes_away_while_it_begins_to_listen_leaves_nothing_behind(pair: Pair) -> None:
    gone, heard, before = Heard(), Heard(), _interests(pair[1])
    beginning = asyncio.ensure_future(pair[1].listen("run.one", gone))
    await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait([beginning])
    if not beginning.cancelled():  # where nothing has to be waited for it listens already
        beginning.result()()
    await pair[1].listen("run.one", heard)
    pair[0].publish("run.one", b"late")
    assert await heard.first(1) == [b"late"]
    assert gone.bodies == []
    assert _interests(pair[1]) == before + 1


def _interests(signals: Signals) -> int:
    """Count what a node listens to."""
    if isinstance(signals, NatsSignals):
        return len(signals._interests)
    if isinstance(signals, WireSignals):
        return len(signals._own)
    assert isinstance(signals, MemorySignals)
    listening = signals._exchange.listening.values()
    return sum(node is signals for entries in listening for node, _ in entries)


async def test_one_that_raises_does_not_keep_others_from_hearing(pair: Pair) -> None:
    def raises(_: bytes) -> None:
        raise LookupError

    heard = Heard()
    await pair[1].listen("run.one", raises)
    await pair[1].listen("run.one", heard)
    with capture_logs() as logs:
        pair[0].publish("run.one", b"1")
        pair[0].publish("run.one", b"2")
        assert await heard.first(2) == [b"1", b"2"]
    assert {log["event"] for log in logs} == {"signal.listener_failed"}


async def test_what_cannot_be_sent_is_counted_and_never_raised(pair: Pair) -> None:
    heard = Heard()
    await pair[1].listen("run.one", heard)
    pair[0].publish("run.one", b"x" * (MESSAGE_MAX + 1))
    pair[0].publish("run one\r\nPUB evil 0", b"")
    pair[0].publish("run.one", b"y" * MESSAGE_MAX)
    assert [len(body) for body in await heard.first(1)] == [MESSAGE_MAX]
    assert pair[0].lost >= 1


@pytest.mark.parametrize("subject", ["", "a b", "a..b", "*", ">", "a\r\nb", "é", "a." * 9 + "a"])
async def test_a_subject_is_words(pair: Pair, subject: str) -> None:
    with pytest.raises(ValueError, match="words"):
        await pair[0].listen(subject, Heard())
    with pytest.raises(ValueError, match="words"):
        await pair[0].answer(subject, doubled)


async def test_each_question_has_its_own_answer(pair: Pair) -> None:
    await pair[1].answer("double", doubled)
    bodies = [b"%d" % number for number in range(100)]
    answers = await asyncio.gather(*(pair[0].ask("double", body, LONG) for body in bodies))
    assert answers == [body * 2 for body in bodies]
    assert await pair[1].ask("double", b"own", LONG) == b"ownown"


async def test_where_nobody_answers_it_is_said_at_once(pair: Pair) -> None:
    end = await pair[1].answer("double", doubled)
    assert await pair[0].ask("double", b"a", LONG) == b"aa"
    end()
    await pair[1].listen("settled", Heard())
    with pytest.raises(NoAnswer):
        await pair[0].ask("double", b"a", LONG)


async def test_a_question_is_not_asked_for_ever(pair: Pair) -> None:
    asked = asyncio.Event()

    async def silent(_: bytes) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return b""

    await pair[1].answer("double", silent)
    with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
        await pair[0].ask("double", b"", 0.05)
    await asked.wait()


async def test_a_handler_that_raises_is_no_answer_and_stands_in_the_log(pair: Pair) -> None:
    async def raises(_: bytes) -> bytes:
        raise LookupError("what only the log should say")

    await pair[1].answer("double", raises)
    with capture_logs() as logs, pytest.raises(NoAnswer) as raised:
        await pair[0].ask("double", b"", LONG)
    assert "only the log" not in str(raised.value)
    assert [log["event"] for log in logs] == ["signal.handler_failed"]


async def test_too_long_questions_and_answers_are_no_answer(pair: Pair) -> None:
    await pair[1].answer("double", doubled)
    with pytest.raises(NoAnswer):
        await pair[0].ask("double", b"x" * (MESSAGE_MAX + 1), LONG)
    with capture_logs(), pytest.raises(NoAnswer):
        await pair[0].ask("double", b"x" * MESSAGE_MAX, LONG)
    half = b"x" * (MESSAGE_MAX // 2)
    assert len(await pair[0].ask("double", half, LONG)) == MESSAGE_MAX


async def test_who_has_too_much_to_answer_says_so_at_once(pair: Pair) -> None:
    enough = asyncio.Event()
    began = 0

    async def slow(body: bytes) -> bytes:
        nonlocal began
        began += 1
        await enough.wait()
        return body

    await pair[1].answer("slow", slow)
    asking = [asyncio.create_task(pair[0].ask("slow", b"", LONG)) for _ in range(300)]
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
    assert all(isinstance(task.exception(), NoAnswer) for task in done)
    enough.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert began == sum(isinstance(answer, bytes) for answer in answers) == 256


async def test_closing_ends_what_is_being_answered(pair: Pair) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def silent(_: bytes) -> bytes:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return b""

    await pair[1].answer("double", silent)
    asking = asyncio.create_task(pair[0].ask("double", b"", 0.5))
    await asked.wait()
    await pair[1].close()
    assert ended.is_set()
    with pytest.raises(NoAnswer):
        await asking
    with pytest.raises(NoAnswer):
        await pair[1].ask("double", b"", LONG)
    pair[1].publish("run.one", b"")
    assert not pair[1].connected
