"""The settings of an action, as a step gives them: filled in, and not yet believed."""

from collections.abc import Mapping, Sequence
from typing import Any

from insula.engine.failures import StepFailure
from insula.files.wish import PAGES_MAX


class Given:
    """What a step gives to an action; ``null`` and an empty text count as absent."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def value(self, name: str) -> Any:
        """Return a setting that must be there. Raises ``StepFailure``: ``input``."""
        value = self._values.get(name)
        if value is None or value == "":
            raise StepFailure(f"{name} is missing", "input")
        return value

    def text(self, name: str) -> str:
        """Return a text that must be there. Raises ``StepFailure``: ``input``."""
        value = self.value(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise StepFailure(f"{name} must be a text", "input")
        return value.strip()

    def optional(self, name: str) -> str | None:
        """Return a text, if it is there. Raises ``StepFailure``: ``input``."""
        value = self._values.get(name)
        return None if value is None or value == "" else self.text(name)

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        """Return one of several words. Raises ``StepFailure``: ``input``."""
        value = self.optional(name)
        if value is None:
            return default
        if value not in allowed:
            raise StepFailure(f"{name} must be one of {', '.join(allowed)}", "input")
        return value


def page_numbers(text: str) -> tuple[int, ...]:
    """Read pages such as ``1-3, 5``.

    Raises:
        StepFailure: ``input``, they are none.
    """
    pages: list[int] = []
    for part in text.strip("[]").split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not _is_page(first) or (dash and not _is_page(last)):
            raise StepFailure("pages must be numbers and ranges from 1, such as 1-3, 5", "input")
        start, end = int(first), int(last) if dash else int(first)
        if end < start or len(pages) + end - start >= PAGES_MAX:
            raise StepFailure(f"pages must be ranges of at most {PAGES_MAX:,} in all", "input")
        pages += range(start, end + 1)
    return tuple(pages)


def _is_page(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) > 0
