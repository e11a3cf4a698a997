"""Signals within one process: of a node alone, or of several nodes that share an exchange."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

from insula.jobs.signals import MESSAGE_MAX, End, Handler, Heard, NoAnswer, check_subject
from insula.jobs.tasks import Tasks

_ANSWERS_MAX = 256

_Entry = TypeVar("_Entry")

log = structlog.get_logger("insula.jobs")


class Exchange:
    """What the nodes of one process share: who listens to what, and who answers."""

    def __init__(self) -> None:
        self.listening: dict[str, list[tuple[MemorySignals, Heard]]] = {}
        self.answering: dict[str, list[tuple[MemorySignals, Handler]]] = {}


class MemorySignals:
    """A node's signals over an exchange; its own where none is given."""

    def __init__(self, exchange: Exchange | None = None) -> None:
        self._exchange = exchange or Exchange()
        self._connected = True
        self._closed = False
        self._lost = 0
        self._returns: list[Callable[[], None]] = []
        self._tasks = Tasks(_ANSWERS_MAX)

    @property
    def connected(self) -> bool:
        """Whether it is neither cut off nor closed."""
        return self._connected and not self._closed

    @property
    def trouble(self) -> str | None:
        """Whether it is cut off or closed, in words."""
        return None if self.connected else "cut off"

    @property
    def lost(self) -> int:
        """How many messages were dropped here since the start."""
        return self._lost

    def cut(self) -> None:
        """Be unreachable, as a node is whose broker is away."""
        self._connected = False

    def mend(self) -> None:
        """Be reachable again."""
        self._connected = True
        for back in self._returns:
            back()

    def publish(self, subject: str, body: bytes = b"") -> None:
        """Tell whoever listens, in a later turn of the event loop."""
        if not self.connected or len(body) > MESSAGE_MAX:
            self._lost += 1
            return
        for entry in self._exchange.listening.get(subject, ()):
            if entry[0].connected:
                asyncio.get_running_loop().call_soon(self._deliver, subject, entry, body)

    async def listen(self, subject: str, heard: Heard) -> End:
        """Call ``heard`` with what is published; the returned function ends it."""
        return _enter(self._exchange.listening, check_subject(subject), (self, heard))

    async def answer(self, subject: str, handler: Handler) -> End:
        """Answer what is asked; of several who answer one is chosen."""
        return _enter(self._exchange.answering, check_subject(subject), (self, handler))

    async def ask(self, subject: str, body: bytes, within: float) -> bytes:
        """Ask whoever answers there.

        Raises:
            NoAnswer: nobody listens, nothing came in time, the handler failed, or it is cut off.
        """
        if len(body) > MESSAGE_MAX:
            raise NoAnswer(f"a question of more than {MESSAGE_MAX} bytes is not sent")
        reachable = [
            entry for entry in self._exchange.answering.get(subject, ()) if entry[0].connected
        ]
        if not self.connected or not reachable:
            raise NoAnswer("nobody answers there")
        node, handler = reachable[0]
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if not node._tasks.start(_reply(subject, handler, body, reply)):
            raise NoAnswer("whoever answers there has too much to do")
        try:
            async with asyncio.timeout(within):
                answer = await reply
        except TimeoutError:
            raise NoAnswer(f"nothing came within {within:g} s") from None
        if not all(end.connected for end in (self, node)):
            raise NoAnswer("the answer did not come through")
        return answer

    def on_return(self, back: Callable[[], None]) -> None:
        """Have ``back`` called at every ``mend``."""
        self._returns.append(back)

    async def close(self) -> None:
        """End all listening and answering."""
        self._closed = True
        _leave(self._exchange.listening, self)
        _leave(self._exchange.answering, self)
        await self._tasks.close()

    def _deliver(self, subject: str, entry: tuple["MemorySignals", Heard], body: bytes) -> None:
        node, heard = entry
        if not node.connected or entry not in self._exchange.listening.get(subject, ()):
            return
        try:
            heard(body)
        except Exception:
            log.exception("signal.listener_failed", subject=subject)


async def _reply(subject: str, handler: Handler, body: bytes, reply: asyncio.Future[bytes]) -> None:
    """Run the handler and settle the reply, whatever comes of it."""
    failure = NoAnswer("whoever answers there has closed")
    try:
        answer = await handler(body)
        if len(answer) <= MESSAGE_MAX and not reply.done():
            reply.set_result(answer)
        failure = NoAnswer(f"an answer of more than {MESSAGE_MAX} bytes is not sent")
    except Exception:
        log.exception("signal.handler_failed", subject=subject)
        failure = NoAnswer("the handler failed")
    finally:
        if not reply.done():
            reply.set_exception(failure)


def _leave(table: dict[str, list[tuple[MemorySignals, _Entry]]], node: MemorySignals) -> None:
    for subject in list(table):
        table[subject] = [entry for entry in table[subject] if entry[0] is not node]
        if not table[subject]:
            del table[subject]


def _enter(table: dict[str, list[_Entry]], subject: str, entry: _Entry) -> End:
    table.setdefault(subject, []).append(entry)

    def end() -> None:
        entries = table.get(subject, [])
        if entry in entries:
            entries.remove(entry)
        if not entries:
            table.pop(subject, None)

    return end
