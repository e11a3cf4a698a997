"""The demo's desk: quick for one customer, endless for the other until it tidies up."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from insula.cli.demo.desk import PAGE, Desk, open_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


@pytest.fixture
async def http(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=desk.url, trust_env=False) as client:
        yield client


async def test_it_knows_customers_and_their_tickets(desk: Desk, http: httpx.AsyncClient) -> None:
    customer = (await http.get("/customers/Northwind")).json()
    assert customer == {"name": "Northwind", "tickets": 60, "open": ["T-1"]}
    pages = [(await http.get(f"/customers/Northwind/tickets?page={n}")).json() for n in range(4)]
    assert [len(page) for page in pages] == [PAGE, PAGE, PAGE, 0]
    assert desk.pages == 4
    assert (await http.get("/orders/Northwind")).json() == ["blue", "green"]


async def test_the_other_customer_waits_until_the_desk_tidies_up(
    desk: Desk, http: httpx.AsyncClient
) -> None:
    holding, released = asyncio.Event(), asyncio.Event()

    def changed() -> None:
        (holding if desk.waiting else released).set()

    desk.changed = changed
    asking = asyncio.create_task(http.post("/archive", content='{"customer": "Initech"}'))
    await holding.wait()
    assert desk.waiting == {"/archive"}
    asking.cancel()
    await asyncio.wait({asking})
    await released.wait()
    desk.tidy_up("Initech")
    answer = await http.post("/archive", content='{"customer": "Initech"}')
    assert answer.json() == ["blue", "green"]


async def test_it_counts_what_it_accepts(desk: Desk, http: httpx.AsyncClient) -> None:
    before = await desk.barrier()
    assert before == 1
    await asyncio.gather(*(http.get("/customers/Northwind") for _ in range(3)))
    assert await desk.barrier() == before + 4


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"\xff\xfe nonsense", b"GET / HTTP/1.1\r\n", b""])
async def test_what_is_no_request_does_no_harm(
    desk: Desk, http: httpx.AsyncClient, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
    writer.write(sent)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert json.loads((await http.get("/orders/Northwind")).content)
