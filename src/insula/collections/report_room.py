"""How much of what rules say fits into a report: drawing takes its time, and nobody reads on for
ever. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROOM = 10_000
"""Texts, cells and what holds them, of a whole report; a longer text counts for several."""
ROWS_MAX = 300
"""Rows of one table that are shown."""
COLUMNS_MAX = 10
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
            self.left -= 1
            self.full = True
            return None
        self.left -= 1 + (len(value) // _LETTERS if isinstance(value, str) else 0)
        if isinstance(value, Mapping):
            fitted = {
                name: self.fitting(each, depth + 1)
                for name, each in value.items()
                if self._any_left()
            }
            self.left -= _lacking(fitted)
            return fitted
        if isinstance(value, list):
            return [self.fitting(each, depth + 1) for each in value if self._any_left()]
        return value

    def _any_left(self) -> bool:
        self.full = self.full or self.left <= 0
        return self.left > 0


def columns_of(block: Mapping[str, Any], rows: list[Any]) -> list[Any]:
    """Return the columns of a table that are shown: what it says, or what its first row has."""
    columns = block.get("columns") or block.get("headers")
    if not isinstance(columns, list) or not columns:
        first = rows[0] if rows else []
        width = len(first) if isinstance(first, list) else 1
        columns = list(first) if isinstance(first, Mapping) else [""] * min(width, COLUMNS_MAX)
    return columns[:COLUMNS_MAX] or [""]


def _lacking(block: Mapping[str, Any]) -> int:
    """Count the cells of a table that its rows do not have, and that are drawn all the same."""
    rows = block.get("rows")
    if not isinstance(rows, list):
        return 0
    columns = len(columns_of(block, rows))
    return sum(max(0, columns - _cells(row)) for row in rows[:ROWS_MAX])


def _cells(row: Any) -> int:
    if isinstance(row, Mapping) and isinstance(row.get("cells"), list):
        return len(row["cells"])
    return len(row) if isinstance(row, Mapping | list) else 1
