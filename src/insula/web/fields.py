"""Types of text that goes into text columns: bounded, and free of what databases refuse."""

from typing import Annotated

from pydantic import AfterValidator, Field


def storable(text: str) -> str:
    """Return the text if a text column can hold it.

    Raises:
        ValueError: it holds a NUL character or a lone surrogate.
    """
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not hold a lone surrogate")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return storable(text)


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_filled)]
"""A name: 1 to 200 characters, not blank."""

Line = Annotated[str, Field(max_length=500), AfterValidator(storable)]
"""A short text that may be empty, such as a caller's own identifier."""

Prose = Annotated[str, Field(max_length=20_000), AfterValidator(storable)]
"""A description or notes."""
