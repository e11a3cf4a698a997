"""The HTTP client of the command line: one server, one key, errors in words."""

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from insula import __version__
from insula.cli.event_stream import ServerEvent, read_events
from insula.cli.failures import CommandFailed, ExitCode, code_of_status, usage
from insula.kit.json import InvalidJson, decode, encode

Query = Mapping[str, str | int | bool | list[str] | None]

# Plain answers come within seconds; a stream is kept alive by a comment every 10 seconds.
_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
_ANSWER_LIMIT = 256 * 1024 * 1024


class Client:
    """Talks to one server with one key; a path without a slash stands below ``/apps/c``.

    ``alone`` says that the server is here for this command alone, and that there is no other one.
    """

    def __init__(
        self,
        url: str,
        key: str,
        transport: httpx2.AsyncBaseTransport | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self.url = _checked_url(url)
        self.alone = alone
        if not key.isascii() or not key.isprintable():
            raise usage("The key holds characters that no key has.")
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}", "user-agent": f"insula/{__version__}"},
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=not _is_loopback(self.url.host),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return the decoded answer.

        Raises:
            CommandFailed: there is no answer, or it is not a success.
        """
        async with self._send(method, path, body, query, headers) as response:
            return _decoded(await _read(response), response.request.url)

    @asynccontextmanager
    async def events(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        """Send a request whose answer is a stream of events.

        Raises:
            CommandFailed: there is no answer, or it is not a success.
            httpx2.TransportError: the stream broke; it may be taken up again.
        """
        accept = {"accept": "text/event-stream", **(headers or {})}
        async with self._send(method, path, body, None, accept) as response:
            yield read_events(response.aiter_bytes())

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: Query | None,
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[httpx2.Response]:
        request = self._http.build_request(
            method,
            path if path.startswith("/") else f"/apps/c/{path}",
            content=_encoded(body),
            params={name: value for name, value in (query or {}).items() if value is not None},
            headers={"content-type": "application/json"} if body is not None else {},
        )
        request.headers.update(headers or {})
        try:
            response = await self._http.send(request, stream=True)
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error
        try:
            if not response.is_success:
                raise _refused(response, await _read(response))
            yield response
        finally:
            await response.aclose()


def unreachable(url: httpx2.URL, error: httpx2.TransportError) -> CommandFailed:
    """Say that the server did not answer, and why."""
    why = str(error) or type(error).__name__
    return CommandFailed(
        f"No answer from {url}: {why}",
        ExitCode.UNREACHABLE,
        "Is the server running? `insula serve --data DIR` starts one.",
    )


def _checked_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise usage(f"INSULA_URL is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise usage("INSULA_URL must look like http://127.0.0.1:8000")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _encoded(body: object) -> bytes | None:
    if body is None:
        return None
    try:
        return encode(body)
    except InvalidJson as error:
        raise usage(f"What is to be sent is not JSON: {error}") from error


async def _read(response: httpx2.Response) -> bytes:
    size = 0
    pieces = []
    try:
        async for piece in response.aiter_bytes():
            size += len(piece)
            if size > _ANSWER_LIMIT:
                raise CommandFailed(
                    f"The answer is larger than {_ANSWER_LIMIT} bytes.", ExitCode.UNREACHABLE
                )
            pieces.append(piece)
    except httpx2.TransportError as error:
        raise unreachable(response.request.url, error) from error
    return b"".join(pieces)


def _decoded(body: bytes, url: httpx2.URL) -> Any:
    try:
        return decode(body)
    except InvalidJson as error:
        raise CommandFailed(
            f"The answer of {url} is not JSON; is this an Insula server?",
            ExitCode.UNREACHABLE,
        ) from error


def _refused(response: httpx2.Response, content: bytes) -> CommandFailed:
    """Turn the error body ``{status, message, errors?}`` into words."""
    code = code_of_status(response.status_code)
    try:
        body = decode(content)
    except InvalidJson:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return CommandFailed(f"The server answered {response.status_code}.", code)
    lines = [body["message"]]
    errors = [error for error in body.get("errors") or [] if isinstance(error, dict)]
    for error in errors:
        path = ".".join(str(part) for part in error.get("path") or [])
        lines.append(f"  {path}: {error.get('message')}" if path else f"  {error.get('message')}")
    return CommandFailed("\n".join(lines), code, _hint(response), errors)


def _hint(response: httpx2.Response) -> str | None:
    if response.status_code == 401:
        return "Set INSULA_KEY, or use --data DIR with a key made by `insula apps create`."
    after = response.headers.get("retry-after")
    return f"Try again in {after} s." if after else None
