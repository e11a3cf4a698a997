"""What arrives from a client: messages under a deadline, and its going away."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope

from insula.errors import BadInput, Unavailable
from insula.kit.tasks import cancels

T = TypeVar("T")

STALLED = 60.0
"""Seconds that a client may let pass between two pieces of a body, and be late with all of it."""
_PATIENCE = 1.0
"""Seconds after which it is watched whether a client who waits is still there."""


HELD = "insula.held"
"""Where the memory that a request's body takes stands in its scope."""


class Room:
    """The memory of all bodies that are being read, or are not gone through yet.

    For ``small`` ones there always is some: large ones must not keep out all others.
    """

    def __init__(self, most: int, small: int) -> None:
        self.held = 0
        self._most = most
        self._small = small

    def take(self, request: Request, size: int) -> None:
        """Take some for a request, until it is ``left`` by it.

        Raises:
            Unavailable: there is no more.
        """
        _, before = request.scope.get(HELD, (self, 0))
        if before + size > self._small and self.held + size > self._most:
            raise Unavailable("Too many large bodies are being read. Try again.", retry_after=1)
        self.held += size
        request.scope[HELD] = (self, before + size)


def leave_room(scope: Scope) -> None:
    """Give back what a request took; whatever comes of its body is counted elsewhere."""
    if held := scope.pop(HELD, None):
        room, size = held
        room.held -= size


class Arriving:
    """A body that comes in piece by piece, and fast enough: whoever sends a byte now and then would
    hold a connection, and what has come so far, for as long as he likes.

    Each piece pays for the time that it would take at the least rate; nobody can pay for more than
    ``STALLED`` seconds ahead. Only the time counts in which a piece is waited for.
    """

    def __init__(
        self, receive: Receive, least: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._receive = receive
        self._least = least
        self._clock = clock
        self._left = STALLED

    async def piece(self) -> Message:
        """Return the next piece.

        Raises:
            BadInput: it comes too slowly, or not at all, or breaks off: its client went away, or
                its chunks cannot be read. Which of them is not told apart.
        """
        if self._left <= 0:
            raise self._too_slow()
        begun = self._clock()
        try:
            async with asyncio.timeout(self._left):
                message = await receive_message(self._receive)
        except TimeoutError:
            raise self._too_slow() from None
        except ClientDisconnect:
            raise BadInput("The body broke off before its end.") from None
        paid = len(message.get("body", b"")) / self._least
        self._left = min(self._left - (self._clock() - begun) + paid, STALLED)
        return message

    def _too_slow(self) -> BadInput:
        return BadInput(
            f"The body stopped arriving, or came more slowly than {self._least:,} bytes a second "
            f"(INSULA_BODY_RATE_MIN) and fell {STALLED:g} seconds behind that."
        )


async def receive_message(receive: Receive) -> Message:
    """Return the next piece of the body.

    Raises:
        ClientDisconnect: the client went away. Granian says so by cancelling what is awaited, not
            the task that awaits it.
    """
    try:
        message = await receive()
    except asyncio.CancelledError:
        if cancels():
            raise
        raise ClientDisconnect from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has gone away; the body must have been read."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except asyncio.CancelledError:
        if cancels():
            raise


async def while_present(
    receive: Receive, work: Coroutine[Any, Any, T], patience: float = _PATIENCE
) -> T:
    """Do it, and stop it if the client goes away meanwhile; the body must have been read.

    For some seconds of patience nobody looks: what is done by then needs no watch.

    Raises:
        ClientDisconnect: the client went away, and the work has ended.
    """
    tasks: list[asyncio.Future[Any]] = [doing := asyncio.ensure_future(work)]
    try:
        if patience:
            await asyncio.wait(tasks, timeout=patience)
        if not doing.done():
            tasks.append(asyncio.ensure_future(until_disconnected(receive)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
