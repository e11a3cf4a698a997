"""Places: a bound for all, a share for each app, and whose fault it is that one waits."""

import asyncio

import pytest

from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.places import Claim, Places
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest


async def settled(*tasks: "asyncio.Task[None]") -> list[bool]:
    """Let everything that can go on do so; say which are done."""
    for _ in range(10):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def enter(places: Places, claim: Claim) -> "asyncio.Task[None]":
    return asyncio.create_task(places.enter(claim))


async def test_an_app_has_its_share_and_no_more() -> None:
    places = Places(4, "a place")
    claims = [Claim("a") for _ in range(3)]
    own = [enter(places, claim) for claim in claims]
    assert await settled(*own) == [True, True, False]
    assert [bool(claim.waits_for) for claim in claims] == [False, False, True]
    others = [enter(places, Claim("b")) for _ in range(3)]
    assert await settled(*others) == [True, True, False]
    places.leave("a")
    assert await settled(*own, *others) == [True, True, True, True, True, False]


async def test_the_operator_has_the_whole() -> None:
    places = Places(4, "a place")
    own = [enter(places, Claim()) for _ in range(5)]
    assert await settled(*own) == [True, True, True, True, False]
    places.leave("")
    assert all(await settled(*own))


async def test_who_gives_up_leaves_nothing_behind() -> None:
    places = Places(2, "a place")
    await places.enter(Claim("a"))
    waiting = [enter(places, Claim("a")), enter(places, Claim("b")), enter(places, Claim("c"))]
    assert await settled(*waiting) == [False, True, False]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    places.leave("a")
    places.leave("b")
    assert not places._apps
    assert await settled(enter(places, Claim("c")), enter(places, Claim("d"))) == [True, True]


async def test_a_tarpit_holds_up_its_own_app_alone(server, answer) -> None:
    held: list[asyncio.Event] = []

    async def hang(request: bytes, reader: object, writer: asyncio.StreamWriter) -> None:
        if b"/slow" in request:
            held.append(asyncio.Event())
            await held[-1].wait()
        writer.write(answer())

    def send(path: str, app_id: str, timeout: float) -> "asyncio.Task[object]":
        request = HttpRequest("GET", server.url + path, timeout=timeout, app_id=app_id)
        return asyncio.create_task(client.send(request, Activity("test", 0)))  # type: ignore[arg-type]  # any answer

    server.handler = hang
    client = HttpClient(EgressPolicy(["127.0.0.0/8"]), limit=4)
    slow = [send("/slow", "a", 60) for _ in range(2)]
    with pytest.raises(StepFailure) as caught:
        await send("/", "a", 0.05)
    assert caught.value.code == "timeout"
    assert "waited for a free connection (an app has 2 at once" in caught.value.message
    assert "did not answer" not in caught.value.message
    assert (await send("/", "b", 60)).status == 200  # type: ignore[attr-defined]  # see above
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await send("/", "a", 60)).status == 200  # type: ignore[attr-defined]  # see above
    for event in held:
        event.set()
    await client.close()
