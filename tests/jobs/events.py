"""What tests of signals and jobs wait with, and what they count."""

import asyncio
import os
from collections.abc import Callable


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process brings about, and nothing here announces."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait on
            await asyncio.sleep(0.002)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._came = asyncio.Event()

    def __call__(self, body: bytes) -> None:
        self.bodies.append(body)
        self._came.set()

    async def first(self, count: int) -> list[bytes]:
        """Wait for so many and return them; more than those are a failure."""
        async with asyncio.timeout(20):
            while len(self.bodies) < count:
                self._came.clear()
                await self._came.wait()
        assert len(self.bodies) == count
        return self.bodies


class Taken:
    """A worker that remembers what it took."""

    def __init__(self) -> None:
        self.hints: list[tuple[str, str]] = []
        self.most_at_once = 0
        self._now = 0
        self._came = asyncio.Event()

    async def __call__(self, owner: str, item: str) -> None:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0)
        self.hints.append((owner, item))
        self._now -= 1
        self._came.set()

    @property
    def items(self) -> set[str]:
        return {item for _, item in self.hints}

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds, looking after each that was taken."""
        async with asyncio.timeout(20):
            while not holds():
                self._came.clear()
                await self._came.wait()


def open_sockets() -> set[str]:
    """Return the sockets that this process holds."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found
