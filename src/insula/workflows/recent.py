"""A bounded memory of what was used last: by number of entries and by their weight."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A dictionary that lets go of what was not used for longest."""

    def __init__(
        self, most: int, heaviest: int = 0, weigh: Callable[[V], int] | None = None
    ) -> None:
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._most = most
        self._heaviest = heaviest
        self._weigh = weigh or (lambda _: 0)
        self.weight = 0

    def get(self, key: K) -> V | None:
        """Return what is kept, and remember that it was used."""
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep a value; the oldest go until the bounds hold. One that is too heavy is not kept."""
        self.drop(key)
        weight = self._weigh(value)
        if weight > self._heaviest:
            return
        self._kept[key] = value
        self.weight += weight
        while len(self._kept) > self._most or self.weight > self._heaviest:
            _, oldest = self._kept.popitem(last=False)
            self.weight -= self._weigh(oldest)

    def drop(self, key: K) -> None:
        """Let go of one entry, if it is there."""
        value = self._kept.pop(key, None)
        if value is not None:
            self.weight -= self._weigh(value)

    def __len__(self) -> int:
        return len(self._kept)
