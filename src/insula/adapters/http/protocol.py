"""HTTP/1.1 as httpcore speaks it, with a server that may mean harm.

The parser goes through all that it is given without a pause, and takes a hundred times longer for
the shortest chunks, headers and answers than for a body of the same size. So what comes is measured
here: bytes, interim answers and lines are bounded, and parsing takes turns.
"""

import re
from typing import Any

import httpcore2

from insula.adapters.http.network import Stream
from insula.engine.failures import StepFailure
from insula.kit.turns import Turns

_INTERIM = 20
"""Answers of 1xx before the answer."""
_LINES = 500
"""Lines of one head, or of what follows the last chunk."""
_PORTION = 4 * 1024
_next_chunk = re.compile(rb"\r\n([1-9A-Fa-f][0-9A-Fa-f]{2,6})\r\n").match
"""The end of a chunk and the size of one after it that is not among the shortest."""
_RATIO, _CONSTANT = 4, 256 * 1024
"""What an answer may take on the wire, for each byte of its body and besides: a chunk of two bytes
takes seven."""


class Protocol(httpcore2.AsyncHTTP11Connection):
    """One connection's end of the protocol. Parsing of all connections shares ``turns``."""

    def __init__(self, origin: httpcore2.Origin, stream: Stream, turns: Turns) -> None:
        self._turns = turns
        self._portions = _Portions(stream, turns)
        super().__init__(origin, self._portions)
        self._portions.parser = self._h11_state

    def begin(self, max_bytes: int) -> None:
        """Prepare for an answer whose body may have ``max_bytes``."""
        self._portions.begin(_RATIO * max_bytes + _CONSTANT)

    @property
    def at_rest(self) -> bool:
        """Whether request and answer are complete, and nothing has come that nobody asked for."""
        unasked = self._portions.pending or self._h11_state.trailing_data[0]
        return self.is_idle() and not unasked

    async def _receive_event(self, timeout: float | None = None) -> Any:
        if (pause := self._turns.take()) is not None:
            await pause
        event = await super()._receive_event(timeout)
        self._portions.parsed(event)
        return event


class _Portions(httpcore2.AsyncNetworkStream):
    """Gives the parser what has come, only so much at a time as it cannot choke on.

    Heads, and what may follow the last chunk, are parsed as a whole: of all but bodies and large
    chunks it gets small portions, and no more of them once there are too many lines.
    """

    def __init__(self, stream: Stream, turns: Turns) -> None:
        self.parser: Any = None
        self._stream = stream
        self._turns = turns
        self.pending = b""
        self.begin(0)

    def begin(self, wire_bytes: int) -> None:
        """Count anew, for the next answer."""
        self._bound = self._left = wire_bytes
        self._interim = 0
        self._lines = 0
        self._plain_body = False

    def parsed(self, event: Any) -> None:
        """Learn what the parser has made of what it had."""
        self._lines = 0
        status = getattr(event, "status_code", None)
        if status is None:
            return
        if status >= 200:
            self._plain_body = all(name != b"transfer-encoding" for name, _ in event.headers)
            return
        self._interim += 1
        if self._interim > _INTERIM:
            raise httpcore2.RemoteProtocolError(f"more than {_INTERIM} interim answers")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Give the next portion, empty at the end. It is asked for when all before is parsed."""
        if (pause := self._turns.take()) is not None:
            await pause
        if self._lines > _LINES:
            raise httpcore2.RemoteProtocolError(f"more than {_LINES} lines of headers")
        if not self.pending:
            self.pending = await self._stream.read(max_bytes, timeout)
            self._count(len(self.pending))
        data, size = self.pending, self._size()
        portion, self.pending = data[:size], data[size:]
        return portion

    def _count(self, received: int) -> None:
        self._left -= received
        if self._left < 0:
            raise StepFailure(
                f"the answer has more than {self._bound} bytes with all that is around its body",
                "limit_output",
            )

    def _size(self) -> int:
        if self._plain_body:
            return len(self.pending)
        end = self._expected()
        while end and (chunk := _next_chunk(self.pending, end)) is not None:
            end = chunk.end() + int(chunk[1], 16)
        if end > _PORTION:
            return end
        self._lines += self.pending.count(b"\n", 0, _PORTION)
        return _PORTION

    def _expected(self) -> int:
        """Return how much of a chunk is still to come, which only the parser's own reader knows."""
        return int(getattr(self.parser._reader, "_bytes_in_chunk", 0))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write everything."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Do nothing: the exchange that owns the socket closes it."""
