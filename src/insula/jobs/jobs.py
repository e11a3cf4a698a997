"""Hints that work waits, sent to whichever node has room for it."""

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

Room = Callable[[], bool]
Take = Callable[[str, str], Awaitable[None]]

_WORD = re.compile(r"[A-Za-z0-9_-]{1,200}")


class Jobs(Protocol):
    """Hints that work waits, sent to whichever node is free.

    The truth is the row; a lost or doubled hint harms nothing. A kind, an owner and an item are
    words of letters, digits, ``_`` and ``-``.
    """

    @property
    def connected(self) -> bool:
        """Whether hints reach other nodes, as far as is known."""
        ...

    @property
    def lost(self) -> int:
        """How many hints were dropped here since the start."""
        ...

    async def offer(self, kind: str, owner: str, item: str) -> None:
        """Hint that an item waits; never raises.

        Returns once the broker has it, or at once (logged and counted) while the broker is away.
        """
        ...

    async def work(self, kind: str, room: Room, take: Take) -> None:
        """Fetch hints of a kind while ``room()`` says so, for ever; a task of the caller's group.

        ``take(owner, item)`` is awaited for one hint after another; what it raises is logged. An
        item that it does not want it lets go: whoever sweeps the rows offers it again.
        """
        ...

    def wake(self, kind: str) -> None:
        """Say that there may be room again for hints of this kind."""
        ...

    async def close(self) -> None:
        """Let go of the broker. ``work`` must have been cancelled before."""
        ...


def is_word(word: str) -> bool:
    """Say whether it is 1 to 200 letters, digits, ``_`` and ``-``."""
    return _WORD.fullmatch(word) is not None


def check_word(what: str, word: str) -> str:
    """Return the word.

    Raises:
        ValueError: it holds anything but letters, digits, ``_`` and ``-``; names what it is.
    """
    if not is_word(word):
        raise ValueError(f"a hint's {what} is 1 to 200 letters, digits, _ and -")
    return word
