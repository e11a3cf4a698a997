"""What a model call costs, in credits: a thousand a US dollar."""

from typing import Any

from genai_prices import calc_price

from insula.engine.credits import bounded_price

CREDITS_PER_DOLLAR = 1000

# Names of providers here, and in the price library.
_PRICED_AS = {"openai": "openai", "groq": "groq", "openrouter": "openrouter", "xai": "x-ai"}


def credits_of(usage: Any, provider: str, model: str, url: str) -> float:
    """Price a call by the library's list; 0 where it knows no price. ``usage`` is its own type."""
    known = _PRICED_AS.get(provider)
    try:
        priced = (
            calc_price(usage, model, provider_id=known)
            if known is not None
            else calc_price(usage, model, provider_api_url=url)
        )
    except (LookupError, ValueError, ArithmeticError):
        return 0.0
    return bounded_price(float(priced.total_price) * CREDITS_PER_DOLLAR)
