"""Many texts searched for at once: every place where one of them stands, in one pass over the data.

An Aho-Corasick automaton: its cost is that of the data alone, however many texts there are and
however they overlap. A quick look at samples of the data comes before it, and mostly instead of it.
"""

from collections.abc import Iterable
from typing import Final

Span = tuple[int, int]
"""Where something stands: from its first byte to after its last."""

LEAST: Final = 8
"""Bytes of the shortest text that can be searched for."""
_GRAM: Final = 4


class Patterns:
    """Texts of at least 8 bytes. States are numbers, 0 the first; ``depths`` says how many of the
    last bytes read are the beginning of one of the texts.
    """

    def __init__(self, texts: Iterable[bytes]) -> None:
        self.texts = tuple(sorted({text for text in texts if len(text) >= LEAST}))
        self.depths = [0]
        self._next: dict[int, int] = {}
        self._back = [0]
        self._longest = [0]
        self._link(self._plant())
        self._stride = min(map(len, self.texts), default=LEAST) - _GRAM + 1
        self._grams = frozenset(
            text[at : at + _GRAM] for text in self.texts for at in range(self._stride)
        )
        self._most = max(map(len, self.texts), default=0)

    def _plant(self) -> list[tuple[int, int, int, int]]:
        edges: list[tuple[int, int, int, int]] = []
        for text in self.texts:
            state = 0
            for depth, byte in enumerate(text):
                following = self._next.get(state << 8 | byte)
                if following is None:
                    following = self._next[state << 8 | byte] = len(self.depths)
                    self.depths.append(depth + 1)
                    self._back.append(0)
                    self._longest.append(0)
                    edges.append((depth, state, byte, following))
                state = following
            self._longest[state] = len(text)
        return edges

    def _link(self, edges: list[tuple[int, int, int, int]]) -> None:
        edges.sort()  # by depth: what a link leads to is shallower
        for depth, parent, byte, state in edges:
            if depth:
                back = self._back[parent]
                while back and back << 8 | byte not in self._next:
                    back = self._back[back]
                self._back[state] = self._next.get(back << 8 | byte, 0)
            self._longest[state] = max(self._longest[state], self._longest[self._back[state]])

    def scan(self, state: int, data: bytes) -> tuple[int, list[Span]]:
        """Read on from a state; return the state then, and what ends in the data.

        Spans are merged where they overlap; they begin before the data, below 0, where a text does.
        """
        following, back, longest = self._next, self._back, self._longest
        found: list[Span] = []
        for at, byte in enumerate(data, 1):
            reached = following.get(state << 8 | byte)
            while reached is None and state:
                state = back[state]
                reached = following.get(state << 8 | byte)
            state = reached or 0
            if length := longest[state]:
                add(found, (at - length, at))
        return state, found

    def find(self, data: bytes) -> list[Span]:
        """Return where any of the texts stands, in order; those that overlap are one."""
        found: list[Span] = []
        for start, end in self._suspected(data):
            _, spans = self.scan(0, data[start:end])
            found += [(start + first, start + last) for first, last in spans]
        return found

    def _suspected(self, data: bytes) -> list[Span]:
        """Return stretches of the data outside of which no text can stand.

        Each text holds, within its first bytes, one of the samples that are looked at here.
        """
        grams, stride, most = self._grams, self._stride, self._most
        places = range(0, len(data) - _GRAM + 1, stride)
        stretches: list[Span] = []
        for at in [at for at in places if data[at : at + _GRAM] in grams]:
            start, end = max(0, at - stride + 1), min(len(data), at + most)
            if stretches and start <= stretches[-1][1]:
                stretches[-1] = (stretches[-1][0], end)
            else:
                stretches.append((start, end))
        return stretches


def add(spans: list[Span], span: Span) -> None:
    """Add a span that ends after all others; it becomes one with those that it overlaps."""
    start, end = span
    while spans and spans[-1][1] > start:
        start = min(start, spans.pop()[0])
    spans.append((start, end))


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap as one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found
