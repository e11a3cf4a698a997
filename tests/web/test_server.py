"""The real server: a free port, a socket file, streams, clients that leave, a stop in time."""

import asyncio
import io
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from tests.web.application import authenticate, things

from insula.settings import SettingsError, load_settings
from insula.web.openapi import create_application
from insula.web.server import listen, listen_unix, serve
from insula.web.sse import EventStream, frame

Ask = Callable[[str, bytes, dict[str, str]], Awaitable[tuple[int, str]]]
MINE = {"authorization": "Bearer mine"}


class Streams:
    """A route that streams one event and then waits; it tells when its stream has ended."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.ended = asyncio.Event()
        self.router = APIRouter()
        self.router.add_api_route("/stream", self.stream, response_model=None)

    async def stream(self) -> Response:
        return EventStream(self._events())

    async def _events(self) -> AsyncGenerator[bytes, None]:
        try:
            yield frame("run", b"{}", 1)
            self.open.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(
    app: FastAPI, uds: Path | None = None, grace: float = 5.0, seconds: float = 20
) -> AsyncIterator[tuple[str, asyncio.Event]]:
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
        task = group.create_task(
            serve(app, "127.0.0.1", 0, port.set_result, stop, uds=uds, grace=grace)
        )
        task.add_done_callback(lambda _: port.cancel())
        try:
            yield f"http://127.0.0.1:{await port}", stop
        finally:
            stop.set()


def application(*routers: APIRouter) -> FastAPI:
    return create_application([things(), *routers], authenticate, {}, load_settings())


async def test_it_serves_on_a_free_port_and_on_a_socket_file(tmp_path: Path) -> None:
    uds = tmp_path / "insula.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(uds))
    async with serving(application(), uds) as (url, _):
        assert stat.S_IMODE(uds.stat().st_mode) == 0o600
        async with httpx.AsyncClient() as http, httpx.AsyncClient(transport=transport) as local:
            answer = await http.post(f"{url}/apps/c/things", json={"name": "a"}, headers=MINE)
            assert answer.json()["body"] == {"name": "a"}
            assert (await local.get("http://insula/healthz")).json() == {"status": "ok"}
    assert not uds.exists()


async def test_a_stream_notices_that_its_client_has_left() -> None:
    streams = Streams()
    async with serving(application(streams.router)) as (url, _), httpx.AsyncClient() as http:
        async with http.stream("GET", f"{url}/stream") as answer:
            pieces = answer.aiter_bytes()
            text = await anext(pieces)
            while b"event: run" not in text:
                text += await anext(pieces)
        await streams.ended.wait()


async def test_head_of_a_stream_ends() -> None:
    streams = Streams()
    async with serving(application(streams.router)) as (url, _), httpx.AsyncClient() as http:
        answer = await http.head(f"{url}/stream")
        assert answer.headers["content-type"].startswith("text/event-stream")
        await streams.ended.wait()


async def test_a_stop_cuts_off_what_does_not_end() -> None:
    streams = Streams()
    async with serving(application(streams.router), grace=0.05) as (url, stop):
        async with httpx.AsyncClient() as http, http.stream("GET", f"{url}/stream") as answer:
            await streams.open.wait()
            stop.set()
            with pytest.raises(httpx.RemoteProtocolError):
                await answer.aread()
        await streams.ended.wait()


async def test_a_body_announced_too_large_is_refused_unread() -> None:
    async with serving(application()) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(
            b"POST /apps/c/things HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mine\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert b" 413 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_many_callers_at_once() -> None:
    async with serving(application()) as (url, _), httpx.AsyncClient(headers=MINE) as http:
        answers = await asyncio.gather(
            *(http.post(f"{url}/apps/c/things", json={"count": n}) for n in range(50))
        )
    assert [answer.json()["body"]["count"] for answer in answers] == list(range(50))


def test_a_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsError, match=f"INSULA_PORT.*{port}"):
            listen("127.0.0.1", port)


def test_a_socket_left_behind_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "insula.sock"
    listen_unix(path).close()
    listen_unix(path).close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(SettingsError, match=r"insula\.sock"):
        listen_unix(path)
    assert path.read_text() == "mine"
    assert os.umask(0o022) != 0o177


def test_a_socket_may_stand_in_a_deep_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    path = folder / "insula.sock"
    with listen_unix(path):
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


MEBIBYTE = 1024 * 1024
HEAD_OF_FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="document"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)
KINDS = {"form": "multipart/form-data; boundary=edge", "json": "application/json"}


def strict() -> FastAPI:
    given = load_settings(body_max=MEBIBYTE, file_max=MEBIBYTE)
    return create_application([things()], authenticate, {}, given)


def large(kind: str, size: int) -> bytes:
    return (HEAD_OF_FORM if kind == "form" else b'{"name":"') + b"x" * size


async def with_httpx(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(url, content=body, headers=headers)
        return answer.status_code, answer.text


async def with_aiohttp(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body), headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def with_curl(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    given = [part for pair in headers.items() for part in ("-H", ": ".join(pair))]
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-w", "%{http_code}", *given, "--data-binary", "@-", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, wrong = await curl.communicate(body)
    assert curl.returncode == 0, wrong
    return int(out[-3:]), out[:-3].decode()


@pytest.mark.parametrize("ask", [with_httpx, with_aiohttp, with_curl])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [40, 200])
async def test_whoever_sends_far_too_much_reads_that_it_is(ask: Ask, kind: str, size: int) -> None:
    headers = {**MINE, "content-type": KINDS[kind]}
    async with serving(strict(), seconds=120) as (url, _):
        body = large(kind, size * MEBIBYTE)
        status, text = await ask(f"{url}/apps/c/things", body, headers)
    assert status == 413, text
    assert "1,048,576" in text or "2,097,152" in text
