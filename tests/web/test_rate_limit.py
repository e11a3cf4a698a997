"""The limit a minute: for each address and each key, with the wait told."""

import httpx
import pytest
from tests.web.application import application, client

from insula.errors import TooMany
from insula.web import rate_limit
from insula.web.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limited(per_minute: int, clock: Clock) -> RateLimit:
    async def nothing(*_: object) -> None:
        return None

    return RateLimit(nothing, per_minute, clock=clock)


async def ask(limit: RateLimit, address: str, key: bytes | None = None) -> None:
    async def unused(*_: object) -> dict[str, object]:
        raise AssertionError

    headers = [] if key is None else [(b"authorization", key)]
    scope = {"type": "http", "path": "/x", "client": (address, 1), "headers": headers}
    await limit(scope, unused, unused)


async def test_a_minute_at_once_then_as_it_refills() -> None:
    clock = Clock()
    limit = limited(6, clock)
    for _ in range(6):
        await ask(limit, "1.1.1.1")
    with pytest.raises(TooMany) as raised:
        await ask(limit, "1.1.1.1")
    assert raised.value.retry_after == 10
    await ask(limit, "2.2.2.2")
    clock.now += 10
    await ask(limit, "1.1.1.1")
    with pytest.raises(TooMany):
        await ask(limit, "1.1.1.1")


async def test_a_key_counts_wherever_it_comes_from() -> None:
    limit = limited(2, Clock())
    await ask(limit, "1.1.1.1", b"k")
    await ask(limit, "2.2.2.2", b"k")
    with pytest.raises(TooMany):
        await ask(limit, "3.3.3.3", b"k")


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "REMEMBERED", 10)
    limit = limited(2, Clock())
    for number in range(30):
        await ask(limit, f"1.1.1.{number}")
    assert len(limit._due) == 10


async def test_the_answer_says_when() -> None:
    async with client(application(rate_limit=1)) as http:
        first, second = await http.get("/apps/c/things"), await http.get("/apps/c/things")
        assert (await http.get("/healthz")).status_code == 200
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["retry-after"] == "60"
    assert "INSULA_RATE_LIMIT" in second.json()["message"]


async def test_off_by_default(http: httpx.AsyncClient) -> None:
    assert {(await http.get("/apps/c/things")).status_code for _ in range(20)} == {200}
