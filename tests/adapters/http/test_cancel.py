"""Cancelling: when the task has ended its socket is closed, and nothing more is sent."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.engine.ports import Activity, HttpRequest


def _sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            continue  # the directory's own descriptor
    return count


async def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_while_waiting_for_the_answer(server, client) -> None:
    server.handler = None
    before = _sockets()
    activity = Activity("test", 0)
    task = asyncio.create_task(client.send(HttpRequest("POST", server.url), activity))
    await server.arrived.wait()
    await _cancel(task)
    assert client.open_connections == 0
    assert activity.effect_possible
    await server.ended.wait()
    assert server.ends == ["ConnectionResetError"]
    assert len(server.requests) == 1
    assert _sockets() <= before + 1  # the server's end may be closing still


async def test_while_the_answer_comes(server, client) -> None:
    began = asyncio.Event()

    async def half(request, reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async def read() -> None:
        async with client.open(HttpRequest("GET", server.url), Activity("test", 0)) as answer:
            async for _ in answer.chunks:
                began.set()

    server.handler = half
    task = asyncio.create_task(read())
    await began.wait()
    await _cancel(task)
    assert client.open_connections == 0
    await server.ended.wait()


async def test_while_a_large_body_is_being_sent(client) -> None:
    """What the kernel has not sent is dropped: the server never gets the whole request."""
    got = bytearray()
    ended = asyncio.Event()
    arrived = asyncio.Event()

    async def read_a_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.read(1000))
        arrived.set()
        try:
            await go_on.wait()
            while data := await reader.read(1 << 16):
                got.extend(data)
        except ConnectionError:
            pass
        finally:
            ended.set()
            writer.close()

    go_on = asyncio.Event()
    listener = await asyncio.start_server(read_a_little, "127.0.0.1", 0, limit=1000)
    port = listener.sockets[0].getsockname()[1]
    request = HttpRequest("POST", f"http://127.0.0.1:{port}/", body=b"x" * (32 << 20))
    task = asyncio.create_task(client.send(request, Activity("test", 0)))
    await arrived.wait()
    await _cancel(task)
    go_on.set()
    await ended.wait()
    assert len(got) < 32 << 20
    listener.close()
    await listener.wait_closed()


async def test_while_connecting(client) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.socket() as first, socket.socket() as second:
            for taken in (first, second):
                taken.setblocking(False)
                taken.connect_ex(("127.0.0.1", port))
            before = _sockets()
            activity = Activity("test", 0)
            request = HttpRequest("GET", f"http://127.0.0.1:{port}/")
            task = asyncio.create_task(client.send(request, activity))
            for _ in range(5):
                await asyncio.sleep(0)
            await _cancel(task)
            assert _sockets() == before
            assert not activity.effect_possible


async def test_while_waiting_for_a_place(server) -> None:
    client = HttpClient(EgressPolicy(["127.0.0.1"]), limit=1)
    server.handler = None
    first = asyncio.create_task(client.send(HttpRequest("GET", server.url), Activity("a", 0)))
    await server.arrived.wait()
    second = asyncio.create_task(client.send(HttpRequest("GET", server.url), Activity("b", 0)))
    await asyncio.sleep(0)
    await _cancel(second)
    await _cancel(first)
    server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await client.send(HttpRequest("GET", server.url), Activity("c", 0))).status == 200
    await client.close()


async def _cancel_after(turns: int, client: HttpClient, request: HttpRequest) -> bool:
    """Return whether the request was cut off."""
    task = asyncio.create_task(client.send(request, Activity("test", 0)))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return isinstance(outcome, asyncio.CancelledError)


@pytest.mark.parametrize("turns", range(0, 60, 2))
async def test_at_every_turn_of_the_loop(server, turns: int) -> None:
    """No socket, place or second request is left over, on a new connection and on a kept one."""
    client = HttpClient(EgressPolicy(["127.0.0.1"]))
    request = HttpRequest("POST", server.url, body=b"x" * 10, app_id="app_a")
    cut = await _cancel_after(turns, client, request)
    assert client.open_connections == int(not cut)
    await client.send(request, Activity("test", 0))  # the server has seen all before this
    cut = await _cancel_after(turns, client, request)
    if cut and turns > 0:
        assert client.open_connections == 0
    await client.send(request, Activity("test", 0))
    assert 2 <= len(server.requests) <= 4
    places = client._pool._places
    assert (places._free._value, places._apps) == (1000, {})
    assert client.open_connections == 1
    await client.close()
