"""What carries signals and hints, by URL; and nodes of one process that are cut off."""

import pytest
from tests.jobs.events import Heard

from insula.jobs.memory_jobs import MemoryJobs, SharedHints
from insula.jobs.memory_signals import Exchange, MemorySignals
from insula.jobs.signals import NoAnswer
from insula.jobs.transport import open_transport


async def echo(body: bytes) -> bytes:
    return body


async def test_a_node_alone_speaks_with_itself() -> None:
    async with open_transport(None, "one") as transport:
        await transport.signals.answer("echo", echo)
        assert await transport.signals.ask("echo", b"a", 10) == b"a"
        assert transport.signals.connected
        assert transport.jobs.connected
    assert not transport.signals.connected


@pytest.mark.parametrize(
    "url", ["http://ada:5ecret@broker", "nats://a,redis://ada:5ecret@b", "redis://:5ecret@"]
)
async def test_another_scheme_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"INSULA_CLUSTER_URL|address of a Redis") as raised:
        async with open_transport(url, "one"):
            pass
    assert "5ecret" not in str(raised.value)


async def test_an_installation_is_a_word() -> None:
    with pytest.raises(ValueError, match="installation"):
        async with open_transport("nats://127.0.0.1:1", "one.two.>"):
            pass


async def test_a_node_that_is_cut_off_neither_hears_nor_is_heard() -> None:
    exchange, hints = Exchange(), SharedHints()
    one, two = MemorySignals(exchange), MemorySignals(exchange)
    jobs = MemoryJobs(hints)
    heard, returned = Heard(), Heard()
    await two.listen("run.one", heard)
    await two.answer("echo", echo)
    two.on_return(lambda: returned(b""))
    two.cut()
    jobs.cut()
    one.publish("run.one", b"lost")
    two.publish("run.one", b"lost")
    await jobs.offer("runs", "app_1", "run_1")
    with pytest.raises(NoAnswer):
        await one.ask("echo", b"", 10)
    assert (two.connected, two.lost, jobs.connected, jobs.lost) == (False, 1, False, 1)
    two.mend()
    jobs.mend()
    assert await returned.first(1) == [b""]
    one.publish("run.one", b"heard")
    assert await heard.first(1) == [b"heard"]
    assert await one.ask("echo", b"a", 10) == b"a"
    assert jobs.connected
    for end in (one, two, jobs):
        await end.close()
