"""What the files ask of their storage. A key is letters, digits and ``_``."""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection
from typing import Protocol

Known = Callable[[Collection[str]], Awaitable[Collection[str]]]
"""Says which of these keys something still refers to."""


class MissingBlob(LookupError):
    """Nothing is stored under this key."""


class Blobs(Protocol):
    """Bytes that are durable once ``write`` has returned."""

    async def write(self, key: str, chunks: AsyncIterable[bytes], limit: int) -> int:
        """Store a stream under a new key; return its size. Nothing is stored if this raises.

        Raises:
            TooLarge: there are more than ``limit`` bytes.
            Unavailable: the storage is full or broken.
        """
        ...

    async def read(self, key: str) -> bytes:
        """Return all the bytes. Raises ``MissingBlob``."""
        ...

    def open_stream(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes from ``start`` up to ``end`` in pieces. Raises ``MissingBlob``."""
        ...

    async def copy(self, source: str, key: str) -> None:
        """Store under another key what is stored under ``source``; each is deleted for itself.

        What stood under ``key`` is replaced.

        Raises:
            MissingBlob: there is no ``source``.
            Unavailable: the storage is full or broken.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove it; nothing happens if it is gone already."""
        ...

    async def sweep(self, known: Known, older_than: float = 3600.0) -> int:
        """Remove what nothing refers to and is older, in seconds; return how many."""
        ...
