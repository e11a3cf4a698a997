"""What nodes of a cluster say to each other at once: messages, and questions with an answer."""

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

MESSAGE_MAX = 256 * 1024
"""Bytes of one message; a longer one is not sent, and not heard either."""

Heard = Callable[[bytes], None]
Handler = Callable[[bytes], Awaitable[bytes]]
End = Callable[[], None]

_SUBJECT = re.compile(r"[A-Za-z0-9_-]{1,200}(\.[A-Za-z0-9_-]{1,200}){0,7}")


class NoAnswer(Exception):
    """Nobody listens there, nothing came in time, or the broker is away."""


class Signals(Protocol):
    """Messages between the nodes of a cluster.

    Any of them may be lost: what they say stands in the database as well. A subject is words of
    letters, digits, ``_`` and ``-``, with dots between them; there are no wildcards.
    """

    @property
    def connected(self) -> bool:
        """Whether other nodes can be reached, as far as is known."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why other nodes cannot be reached, in words, as far as is known."""
        ...

    @property
    def lost(self) -> int:
        """How many messages were dropped here since the start."""
        ...

    def publish(self, subject: str, body: bytes = b"") -> None:
        """Tell whoever listens, this node too. Never waits, never raises; dropped if it must be."""
        ...

    async def listen(self, subject: str, heard: Heard) -> End:
        """Call ``heard`` with what is published; the returned function ends it.

        Returns when nothing published from now on is missed; while the broker is away at once, and
        it stands as soon as the broker is back. ``heard`` must be quick and must not raise.
        """
        ...

    async def answer(self, subject: str, handler: Handler) -> End:
        """Answer what is asked, each question in a task that ends with this object.

        An exception of the handler is logged and becomes ``NoAnswer`` where it was asked.
        """
        ...

    async def ask(self, subject: str, body: bytes, within: float) -> bytes:
        """Ask whoever answers there and wait at most ``within`` seconds.

        Raises:
            NoAnswer: nobody listens, nothing came in time, the handler failed, or no broker.
        """
        ...

    def on_return(self, back: Callable[[], None]) -> None:
        """Have ``back`` called whenever the connection came back: what was said then is lost."""
        ...

    async def close(self) -> None:
        """End all listening and answering. Nothing may be published or asked afterwards."""
        ...


def is_subject(subject: str) -> bool:
    """Say whether it is 1 to 8 words of letters, digits, ``_`` and ``-``, joined by dots."""
    return _SUBJECT.fullmatch(subject) is not None


def check_subject(subject: str) -> str:
    """Return the subject.

    Raises:
        ValueError: it is not words with dots between them.
    """
    if not is_subject(subject):
        raise ValueError("a subject is 1 to 8 words of letters, digits, _ and -, joined by dots")
    return subject
