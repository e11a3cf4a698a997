"""How a provider's library reaches the network: over our own connections, and nothing else.

A ``Wire`` belongs to one round of one model. Closing it closes every socket of that round at once,
whatever the library is doing.
"""

import re
from collections.abc import AsyncIterator

import httpcore2
import httpx2

from insula.adapters.http.decoding import BodyDecoder
from insula.adapters.http.headers import USER_AGENT
from insula.adapters.http.places import Claim
from insula.adapters.http.pool import Exchange, Pool, origin_of
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity

_MAX_ANSWER = 64 * 1024 * 1024
_MAX_EVENT = 4 * 1024 * 1024
_MAX_CONTAINERS = 100_000
"""Objects and lists of one event; brackets in strings count too."""
_SLICE = 1024
_blank_line = re.compile(rb"\n\n|\n\r|\r\r")

# What a library adds besides says where and on what we run: nobody's business.
_SENT = frozenset({"accept", "authorization", "content-type", "content-length", "idempotency-key"})


class Wire(httpx2.AsyncBaseTransport):
    """A transport whose sockets can be closed without waiting."""

    def __init__(self, pool: Pool, app_id: str, activity: Activity, authorized: bool) -> None:
        self._pool = pool
        self._app_id = app_id
        self._activity = activity
        self._sent = _SENT if authorized else _SENT - {"authorization"}
        self._exchanges: list[Exchange] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Raises ``StepFailure`` where no connection comes about."""
        claim = Claim(self._app_id)
        exchange = await self._pool.exchange(request.url, replayable=False, claim=claim)
        self._exchanges.append(exchange)
        core = self._core(request, await request.aread())
        try:
            response = await exchange.send(core, self._writing, _MAX_ANSWER)
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise httpx2.ReadError(str(error)) from error
        headers = httpx2.Headers(response.headers)
        decoder = BodyDecoder(headers.pop("content-encoding", ""), _MAX_ANSWER)
        body = _Body(response, decoder, exchange, self._activity)
        return httpx2.Response(response.status, headers=headers, stream=body)

    def _writing(self) -> None:
        self._activity.effect_possible = True

    def _core(self, request: httpx2.Request, body: bytes) -> httpcore2.Request:
        scheme, host, port = origin_of(request.url)
        headers = [
            (b"Host", request.url.netloc),
            (b"User-Agent", USER_AGENT.encode()),
            (b"Accept-Encoding", b"identity"),
            *(pair for pair in request.headers.raw if pair[0].decode().lower() in self._sent),
        ]
        target = httpcore2.URL(
            scheme=scheme.encode(), host=host.encode(), port=port, target=request.url.raw_path
        )
        return httpcore2.Request(request.method.encode(), target, headers=headers, content=body)

    def close_now(self) -> None:
        """Keep what is complete, reset the rest."""
        for exchange in self._exchanges:
            exchange.end()


class _Body(httpx2.AsyncByteStream):
    """The answer as it arrives. A library may stop reading and go on with a second iterator."""

    def __init__(
        self,
        response: httpcore2.Response,
        decoder: BodyDecoder,
        exchange: Exchange,
        activity: Activity,
    ) -> None:
        self._response = response
        self._decoder = decoder
        self._exchange = exchange
        self._activity = activity
        self._bounds = _Bounds(response.status == 200)
        self._pieces = self._read()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            yield piece

    async def _read(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._exchange.body(self._response, self._decoder):
                for at in range(0, len(piece), _SLICE):
                    part = piece[at : at + _SLICE]
                    work = _work(self._bounds.last + part)
                    if (pause := self._exchange.turns.take(work)) is not None:
                        await pause
                    self._bounds.count(part)
                    yield part
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise httpx2.ReadError(str(error)) from error
        self._activity.effect_possible = False

    async def aclose(self) -> None:
        self._exchange.end()


class _Bounds:
    """Bounds what the library builds at a time: of an event, or of an answer that is no stream.

    Of few bytes it can build hundreds of times as many: most of all of lists in lists.
    """

    def __init__(self, streamed: bool) -> None:
        self._streamed = streamed
        self.last = b""
        """The end of the part before: a blank line may stand across two."""
        self._bytes = 0
        self._containers = 0

    def count(self, part: bytes) -> None:
        """Count a small part of the answer, before the library gets it.

        Raises:
            StepFailure: with code ``provider``.
        """
        first, *others = _blank_line.split(self.last + part) if self._streamed else [part]
        self._add(first)
        if others:
            self._bytes = self._containers = 0
            self._add(others[-1])
        self.last = part[-1:]

    def _add(self, text: bytes) -> None:
        self._bytes += len(text)
        self._containers += text.count(b"[") + text.count(b"{")
        if self._bytes > _MAX_EVENT:
            raise StepFailure(
                f"the provider's answer holds an event of more than {_MAX_EVENT} bytes", "provider"
            )
        if self._containers > _MAX_CONTAINERS:
            raise StepFailure(
                "the provider's answer holds an event of more than "
                f"{_MAX_CONTAINERS:,} objects and lists",
                "provider",
            )


def _work(part: bytes) -> int:
    """Estimate the library's work with a part, as much as so many steps of parsing: without a
    pause it goes through all the lines of it, and what it makes of an event is many times a line.
    """
    return (part.count(b"\n") + part.count(b"\r")) // 8 + 8 * len(_blank_line.findall(part))
