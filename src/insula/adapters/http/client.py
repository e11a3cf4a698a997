"""The client behind ``engine.ports.Http``: redirects, time limit, size limit, and their errors."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import httpcore2
import httpx2

from insula.adapters.http.decoding import BodyDecoder
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.http.headers import (
    Headers,
    build_headers,
    check_method,
    parse_url,
    without_body,
    without_credentials,
)
from insula.adapters.http.places import Claim
from insula.adapters.http.pool import Exchange, Pool, origin_of, origin_text
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest, HttpResponse

MAX_REDIRECTS = 10
_DRAIN_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True)
class _Hop:
    """One request of a chain of redirects."""

    method: str
    url: httpx2.URL
    headers: Headers
    body: bytes | None

    def parts(self) -> list[bytes]:
        """Return everything of it that a server would get to see."""
        return [str(self.url).encode(), *(value for _, value in self.headers), self.body or b""]

    def core(self) -> httpcore2.Request:
        scheme, host, port = origin_of(self.url)
        headers = [(b"Host", self.url.netloc), *self.headers]
        if self.body is not None or self.method in _WITH_BODY:
            headers.append((b"Content-Length", str(len(self.body or b"")).encode()))
        target = httpcore2.URL(
            scheme=scheme.encode(), host=host.encode(), port=port, target=self.url.raw_path
        )
        return httpcore2.Request(self.method.encode(), target, headers=headers, content=self.body)


@dataclass(slots=True)
class Answer:
    """The head of an answer, with its body to come; ``headers`` in their order, names as sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    url: str
    chunks: AsyncIterator[bytes] = field(repr=False)

    def header(self, name: str) -> str:
        """Return a header's value, or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class HttpClient:
    """Outgoing HTTP under an egress policy; implements ``engine.ports.Http``.

    Connections are kept for a few seconds and never shared with a request that was cut off. Nothing
    of the environment is used: no proxy, no ``.netrc``. Cookies are not kept.
    """

    def __init__(
        self, policy: EgressPolicy, tls: ssl.SSLContext | None = None, limit: int = 1000
    ) -> None:
        self._pool = Pool(policy, tls, limit)

    @property
    def open_connections(self) -> int:
        """How many sockets are open, idle ones included."""
        return self._pool.open_connections

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        """Send and read to the end; see ``open``."""
        async with self.open(request, activity) as answer:
            body = b"".join([chunk async for chunk in answer.chunks])
        return HttpResponse(answer.status, answer.headers, body, answer.url)

    @asynccontextmanager
    async def open(self, request: HttpRequest, activity: Activity) -> AsyncIterator[Answer]:
        """Send, follow redirects, and give the answer with its body as a stream.

        The time limit covers everything up to the end of the block. When the block is left, the
        connection is at rest in the pool, or closed.

        Raises:
            StepFailure: ``input`` (a URL, method or header that cannot be sent), ``egress``,
                ``dns``, ``refused``, ``tls``, ``timeout``, ``network``, ``limit_output``.
        """
        secrets = request.secrets
        request, url = _revealed(request)
        hop = _Hop(check_method(request.method), url, build_headers(request, url), request.body)
        claim = Claim(request.app_id)
        exchange: Exchange | None = None
        try:
            async with asyncio.timeout(request.timeout):
                for _ in range(MAX_REDIRECTS + 1):
                    exchange, response = await self._exchange(
                        hop, activity, claim, request.max_bytes
                    )
                    following = _redirect(hop, response) if request.redirects else None
                    if following is None:
                        yield _answer(hop, exchange, response, request.max_bytes, activity)
                        return
                    await _drain(response)
                    activity.effect_possible = False
                    exchange.end()
                    hop = following
                    if secrets is not None:
                        secrets.check_redirect(*_place(hop.url), hop.parts())
                raise StepFailure(f"there were more than {MAX_REDIRECTS} redirects", "network")
        except TimeoutError:
            raise StepFailure(_late(hop, request.timeout, claim), "timeout") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise StepFailure(
                f"the connection with {origin_text(hop.url)} broke: {error}", "network"
            ) from None
        finally:
            if exchange is not None:
                exchange.end()

    async def _exchange(
        self, hop: _Hop, activity: Activity, claim: Claim, max_bytes: int, fresh: bool = False
    ) -> tuple[Exchange, httpcore2.Response]:
        def writing() -> None:
            activity.effect_possible = True

        safe = hop.method in _SAFE_METHODS
        exchange = await self._pool.exchange(hop.url, safe, claim, fresh)
        try:
            return exchange, await exchange.send(hop.core(), writing, max_bytes)
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
            # The server closed an idle connection as we took it: nothing was answered, and a safe
            # method may be sent again (RFC 9110, 9.2.2).
            retry = exchange.reused and exchange.silent and safe
            exchange.end()
            if not retry:
                raise
        except BaseException:
            exchange.end()
            raise
        return await self._exchange(hop, activity, claim, max_bytes, fresh=True)

    async def close(self) -> None:
        """Close the connections that are at rest; those in use close with their tasks."""
        await self._pool.close()


def _revealed(request: HttpRequest) -> tuple[HttpRequest, httpx2.URL]:
    """Put secrets into a request; from here on it is never shown.

    Raises:
        StepFailure: ``input``, or ``egress`` where a secret may not go.
    """
    if request.secrets is None:
        return request, parse_url(request.url)
    revealed = request.secrets.reveal(request)
    try:
        url = parse_url(revealed.request.url)
    except StepFailure:
        if not revealed.in_url:
            raise
        raise StepFailure("the URL, which a secret is part of, cannot be used", "input") from None
    revealed.check(*_place(url))
    return revealed.request, url


def _late(hop: _Hop, timeout: float, claim: Claim) -> str:
    """Say whose fault it is that the time is up."""
    if claim.waits_for:
        return (
            f"the request to {origin_text(hop.url)} waited for {claim.waits_for} "
            f"up to its time limit of {timeout:g} s"
        )
    return f"{origin_text(hop.url)} did not answer completely within {timeout:g} s"


def _place(url: httpx2.URL) -> tuple[str, int]:
    _, host, port = origin_of(url)
    return host.strip("[]"), port


def _answer(
    hop: _Hop,
    exchange: Exchange,
    response: httpcore2.Response,
    max_bytes: int,
    activity: Activity,
) -> Answer:
    headers = httpx2.Headers(response.headers)
    length = headers.get("content-length", "")
    if hop.method != "HEAD" and length.isascii() and length.isdigit() and int(length) > max_bytes:
        raise StepFailure(
            f"the answer of {origin_text(hop.url)} has {length} bytes, more than {max_bytes}",
            "limit_output",
        )
    decoder = BodyDecoder(headers.get("content-encoding", ""), max_bytes)
    return Answer(
        status=response.status,
        headers=tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in response.headers),
        url=str(hop.url.copy_with(userinfo=b"") if hop.url.userinfo else hop.url),
        chunks=_chunks(exchange.body(response, decoder), activity),
    )


async def _chunks(body: AsyncIterator[bytes], activity: Activity) -> AsyncIterator[bytes]:
    async for piece in body:
        yield piece
    activity.effect_possible = False


async def _drain(response: httpcore2.Response) -> None:
    """Read the short body of a redirect, so that its connection can be kept."""
    size = 0
    with suppress(httpcore2.NetworkError, httpcore2.ProtocolError):
        async for data in response.aiter_stream():
            size += len(data)
            if size > _DRAIN_BYTES:
                return
        await response.aclose()


def _redirect(hop: _Hop, response: httpcore2.Response) -> _Hop | None:
    """Return the request that follows a redirect, ``None`` if the answer is not one."""
    location = next((v for k, v in response.headers if k.lower() == b"location"), None)
    if response.status not in _REDIRECTS or location is None:
        return None
    try:
        text = location.decode("utf-8", "replace")
        url = parse_url(str(hop.url.copy_with(userinfo=b"", fragment=None).join(text)))
    except (StepFailure, httpx2.InvalidURL, ValueError):
        raise StepFailure(
            f"{origin_text(hop.url)} redirects to what is no http or https address", "network"
        ) from None
    following = replace(hop, url=url)
    if hop.method != "HEAD" and (
        response.status == 303 or (response.status in (301, 302) and hop.method == "POST")
    ):
        following.method, following.body = "GET", None
        following.headers = without_body(following.headers)
    if origin_of(url) != origin_of(hop.url):
        following.headers = without_credentials(following.headers)
    return following
