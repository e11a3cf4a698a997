"""Prices in credits: numbers that can be added up, stored and shown, whoever named them."""

from collections.abc import Iterable

MOST = 1e9
"""The most that anything costs, alone or in sum: a million US dollars. What is above it comes of a
mistake, or of a provider that lies; infinity could be neither stored as JSON nor shown."""


def bounded_price(price: float) -> float:
    """Return a price that is finite: from 0 to ``MOST``, and 0 for what is no number."""
    if 0 <= price <= MOST:
        return price
    return MOST if price > MOST else 0.0


def total(prices: Iterable[float]) -> float:
    """Add prices up, to ``MOST`` at most."""
    return bounded_price(sum(map(bounded_price, prices)))
