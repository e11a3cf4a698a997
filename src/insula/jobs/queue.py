"""A queue in memory that is fair between owners: a hint, whose truth is in the database."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable


class FairQueue:
    """Items wait per owner; owners take turns. It holds ``maximum`` items, ``share`` of them of one
    owner, and refuses more.

    A refused item is not lost: it has its row, and whoever sweeps the rows offers it again.
    """

    def __init__(self, maximum: int = 10_000, share: float = 0.1) -> None:
        self._maximum = maximum
        self._owner_maximum = max(1, int(maximum * share))
        self._waiting: OrderedDict[str, deque[str]] = OrderedDict()
        self._known: set[str] = set()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._known)

    def offer(self, owner: str, item: str) -> bool:
        """Take an item in; ``False`` if there is no room. An item that waits already is kept."""
        if item in self._known:
            return True
        mine = self._waiting.get(owner, ())
        if len(self._known) >= self._maximum or len(mine) >= self._owner_maximum:
            return False
        self._known.add(item)
        self._waiting.setdefault(owner, deque()).append(item)
        self._arrived.set()
        return True

    def has(self, owner: str) -> bool:
        """Say whether anything of this owner waits."""
        return owner in self._waiting

    def wake(self) -> None:
        """Let ``arrived`` return: there may be room now for what waits."""
        self._arrived.set()

    async def arrived(self) -> None:
        """Wait until something was offered, or ``wake`` was called, since the last time."""
        await self._arrived.wait()
        self._arrived.clear()

    def take(self, admits: Callable[[str], bool]) -> str | None:
        """Take the next item of the first owner in turn that ``admits`` one."""
        for owner in list(self._waiting):
            if not admits(owner):
                continue
            items = self._waiting[owner]
            item = items.popleft()
            self._known.discard(item)
            if items:
                self._waiting.move_to_end(owner)
            else:
                del self._waiting[owner]
            return item
        return None
