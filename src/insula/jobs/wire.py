"""What carries messages between nodes, as little of it as every kind of broker has: channels that
somebody listens to, and packets for them.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol


class Broken(Exception):
    """A wire is of no more use, or none could be had; says why, and nothing secret."""


class Packet(NamedTuple):
    """Bytes for whoever listens to a channel; the number is that of a question, if it is one."""

    channel: str
    frame: bytes
    question: int | None = None


class Wire(Protocol):
    """One connection to a broker, used until its first trouble; every call may raise ``Broken``.

    Calls follow one another: there are never two at once.
    """

    async def stand(self, channels: Sequence[str], answering: Sequence[str]) -> None:
        """Listen to channels from now on, and have it known that somebody answers at some."""
        ...

    async def leave(self, channels: Sequence[str]) -> None:
        """Listen to channels no more."""
        ...

    async def send(self, packets: Sequence[Packet]) -> Sequence[bool]:
        """Send packets in order; say of each question whether somebody may answer there."""
        ...

    async def look(self) -> None:
        """Ask the broker for a sign of life."""
        ...

    def check(self) -> None:
        """Raise ``Broken`` if the connection is known to be gone."""
        ...

    async def close(self) -> None:
        """End it in whatever state it is; never raises."""
        ...


Hear = Callable[[str, bytes], None]
"""Told the channel and the frame of what arrives; never raises."""
Lost = Callable[[], None]
"""Called where a connection is found to be gone while nobody asked for anything."""
OpenWire = Callable[[Hear, Lost], Awaitable[Wire]]


def channel_of(kind: str, name: str) -> str:
    """Return the channel of a kind (one letter) of messages: 41 characters, whatever the name."""
    return f"insula_{kind}_{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
