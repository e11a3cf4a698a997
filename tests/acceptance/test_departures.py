"""Clients that go away in the middle of an upload, at any point: nothing of it stays behind."""

import asyncio
import base64
import io
import json
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import WAIT, Caller, Clients, Served
from tests.acceptance.processes import wait_until

CUTS = 40 if SOAK else 8
DATA = random.Random(4).randbytes(3 * 2**20)
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    + DATA
    + b"\r\n--b--\r\n"
)
MULTIPART = "multipart/form-data; boundary=b"


def request(path: str, key: str, kind: str, body: bytes) -> bytes:
    """Make the bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {len(body)}", *([f"Authorization: Bearer {key}"] if key else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def leave(url: str, data: bytes, *, reset: bool) -> None:
    """Send this much, and go: with a reset, or without a word."""
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(data)
    await writer.drain()
    if reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()
    await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def held(pid: int) -> list[str]:
    """The files and sockets that a process has open, those of its own aside."""
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
        if "(deleted)" in target or "/files/" in target or target.startswith("socket:"):
            found.append(target)
    return found


def stored(served: Served) -> list[Path]:
    """Everything below the folder of files."""
    return [path for path in (served.data / "files").rglob("*") if path.is_file()]


@pytest.fixture
async def caller(callers: Clients) -> AsyncIterator[Caller]:
    made = await callers.app("Acme")
    await made.ok("GET", "files")
    before = len(held(callers.served.pid))
    yield made
    assert await made.ok("GET", "files") == []
    wait_until(lambda: not stored(callers.served), WAIT, "the bytes to be gone")
    wait_until(lambda: len(held(callers.served.pid)) <= before, WAIT, "what was open to be closed")


def points(size: int) -> list[int]:
    """Places to break off, the edges among them."""
    chance = random.Random(size)
    return [size - 1, size // 2, *(chance.randrange(300, size) for _ in range(CUTS - 2))]


async def cut_everywhere(served: Served, requests: list[bytes]) -> None:
    """Break these requests off at these points, all at once, half of them with a reset."""
    async with asyncio.TaskGroup() as group:
        for number, data in enumerate(requests):
            group.create_task(leave(served.url, data, reset=bool(number % 2)))


async def test_a_form_that_breaks_off(served: Served, caller: Caller) -> None:
    whole = request("/apps/c/files", caller.key, MULTIPART, FORM)
    await cut_everywhere(served, [whole[:at] for at in points(len(whole))])


async def test_base64_that_breaks_off(served: Served, caller: Caller) -> None:
    body = json.dumps({"file": base64.b64encode(DATA).decode()}).encode()
    whole = request("/apps/c/files", caller.key, "application/json", body)
    await cut_everywhere(served, [whole[:at] for at in points(len(whole))])


async def _send(caller: Caller, url: str) -> tuple[int, Any]:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(DATA), filename="a.bin")
    async with caller.session.post(url, data=form) as answer:
        return answer.status, await answer.json()


async def test_an_upload_link_stays_open(served: Served, caller: Caller) -> None:
    link = await caller.ok("POST", "files/uploads", {})
    path = urlsplit(link["upload_url"]).path
    whole = request(path, "", MULTIPART, FORM)
    await cut_everywhere(served, [whole[:at] for at in points(len(whole))])
    async with asyncio.timeout(WAIT):
        while (sent := await _send(caller, link["upload_url"]))[0] == 409:
            pass  # the server has yet to hear that the last of them is gone
    status, made = sent
    assert (status, made["file_size"]) == (200, len(DATA))
    assert len(stored(served)) == 1
    await caller.ok("DELETE", f"files/{made['id']}")


class Hanging:
    """An origin that sends so much of a file, and then nothing more."""

    def __init__(self) -> None:
        self.port = 0
        self.open = 0
        self.came = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.came += 1
        line = await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n")
        writer.write(DATA[: int(line.split()[1].strip(b"/"))])
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    origin = Hanging()
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    yield origin
    server.close()


async def test_a_download_that_hangs_ends_with_its_client(
    served: Served, caller: Caller, hanging: Hanging
) -> None:
    link = await caller.ok("POST", "files/uploads", {})
    paths = ["/apps/c/files", urlsplit(link["upload_url"]).path]
    address = urlsplit(served.url)
    writers = []
    for number, size in enumerate([0, 1, 20_000, 2_500_000]):
        body = json.dumps({"file_url": f"http://127.0.0.1:{hanging.port}/{size}"}).encode()
        key = "" if number == 2 else caller.key
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(request(paths[number == 2], key, "application/json", body))
        writers.append(writer)
    async with asyncio.timeout(WAIT):
        while hanging.came < len(writers):  # noqa: ASYNC110  # another process downloads
            await asyncio.sleep(0.01)
    assert hanging.open == len(writers)
    for writer in writers:
        writer.close()
    async with asyncio.timeout(WAIT):
        while hanging.open:  # noqa: ASYNC110  # another process finds out
            await asyncio.sleep(0.01)
    shown = await caller.ok("GET", f"files/uploads/{link['id']}")
    assert shown["file"] is None
    again = await caller.ask("POST", paths[1], {"file": "YWJj"})
    assert again.status == 200, again.body
    await caller.ok("DELETE", f"files/{again.json()['id']}")


async def test_what_is_too_large_is_told_to_be(serve) -> None:
    served = serve(INSULA_FILE_MAX=str(2**20))
    async with aiohttp.ClientSession() as session:
        made = await Clients(session, served).app("Acme")
        headers = {"authorization": f"Bearer {made.key}", "content-type": MULTIPART}
        for piece in (DATA[: 2**20 + 1], DATA):
            body = FORM.replace(DATA, piece)
            url = f"{served.url}/apps/c/files"
            async with session.post(url, data=io.BytesIO(body), headers=headers) as answer:
                told = await answer.json()
            assert (answer.status, "1,048,576" in told["message"]) == (413, True)
        assert await made.ok("GET", "files") == []
        assert stored(served) == []
