"""How much of what rules say fits into a report: drawing takes its time, and nobody reads on for
ever. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROOM = 10_000
"""Texts and cells of a whole report; a longer text counts for several."""
_LETTERS = 40
_DEPTH = 12


@dataclass(slots=True)
class Room:
    """What is left of it; ``full`` as soon as something was left out."""

    left: int = ROOM
    full: bool = False

    def fitting(self, value: Any, depth: int = 0) -> Any:
        """Return as much of a value as there is room for, ``None`` for nothing."""
        if self.left <= 0 or depth > _DEPTH:
            self.full = True
            return None
        if isinstance(value, Mapping):
            return {
                name: self.fitting(each, depth + 1)
                for name, each in value.items()
                if self._any_left()
            }
        if isinstance(value, list):
            return [self.fitting(each, depth + 1) for each in value if self._any_left()]
        self.left -= 1 + (len(value) // _LETTERS if isinstance(value, str) else 0)
        return value

    def _any_left(self) -> bool:
        self.full = self.full or self.left <= 0
        return self.left > 0
