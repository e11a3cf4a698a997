"""What a draft lacks and the contract requires, filled in with empty values."""

from typing import Any


def fill(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with what the contract requires and a draft lacks."""
    return body
